use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A type that a transform's configuration may consist of: it says its own JSON Schema.
///
/// Derive it, beside serde's `Deserialize`, on structs with named fields and on enums of plain names:
///
/// - A field is required unless it is an `Option` or has `#[serde(default)]`.
/// - Doc comments become descriptions. `#[serde(rename = "..")]` and `rename_all` are followed.
/// - `#[config(secret)]` marks a field whose value must never be seen in logs and errors.
/// - `#[config(minimum = 0, maximum = 9)]` bounds a number; the host checks it.
/// - `#[config(check = "path")]` on the struct names a `fn(&Self) -> Result<(), String>` for what a schema
///   cannot say.
///
/// Fields that are not declared are refused.
pub trait Config: DeserializeOwned + 'static {
    /// Whether a field of this type must be there.
    const REQUIRED: bool = true;

    /// The JSON Schema of the type.
    fn schema() -> Value;

    /// Says what is wrong with a value that fits the schema.
    ///
    /// # Errors
    /// The text is shown to the user.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The configuration of a transform that takes none: `{}`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct NoConfig {}

impl Config for NoConfig {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": false})
    }
}

macro_rules! plain {
    ($schema:tt: $($ty:ty),*) => {
        $(impl Config for $ty {
            fn schema() -> Value {
                json!($schema)
            }
        })*
    };
}

plain!({"type": "string"}: String, char);
plain!({"type": "boolean"}: bool);
plain!({"type": "number"}: f32, f64);
plain!({"type": "integer"}: i8, i16, i32, i64, isize);
plain!({"type": "integer", "minimum": 0}: u8, u16, u32, u64, usize);
plain!({}: Value);

impl<T: Config> Config for Option<T> {
    const REQUIRED: bool = false;

    fn schema() -> Value {
        let mut schema = T::schema();
        if let Some(one) = schema["type"].as_str() {
            schema["type"] = json!([one, "null"]);
        }
        schema
    }
}

impl<T: Config> Config for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
}

impl<T: Config> Config for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
}
