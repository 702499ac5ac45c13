//! A transform of the world `simple-transform` without an SDK: what another language has to do, said in Rust.

wit_bindgen::generate!({ world: "simple-transform", path: "../../../../wit" });

use std::sync::atomic::{AtomicI64, Ordering};

use gristmill::transform::simple::{Rejection, SimpleRead, TypedColumn, Values, Verdict};
use gristmill::transform::types::{Output, Reads};
use gristmill::transform::{log, metrics};

struct Bare;

static MOST: AtomicI64 = AtomicI64::new(0);

const SCHEMA: &str =
    r#"{"type": "object", "properties": {"most": {"type": "integer"}}, "required": ["most"], "additionalProperties": false}"#;

impl Guest for Bare {
    fn describe() -> Manifest {
        Manifest {
            name: "bare".into(),
            version: "0.1.0".into(),
            description: "Doubles amounts, refuses large ones, and says some things twice.".into(),
            config_schema: SCHEMA.into(),
            outputs: vec![Output { name: "large".into(), description: "amounts in the upper half".into() }],
            reads: Reads::empty(),
            columns: Vec::new(),
        }
    }

    fn configure_simple(configuration: SimpleConfiguration) -> Result<SimpleBinding, String> {
        // `{"most": 100}`: the host has checked it.
        let digits = configuration.config.split(':').nth(1).unwrap_or_default();
        let digits = digits.trim_matches(|c: char| !(c.is_ascii_digit() || c == '-'));
        let most: i64 = digits.parse().map_err(|_| format!("most is {digits}, which is no int64"))?;
        if most < 0 {
            return Err("most is below 0".into());
        }
        MOST.store(most, Ordering::Relaxed);
        log::log(log::Level::Info, "configured");
        let read = |path: &str, data_type: &str, optional| SimpleRead {
            path: path.into(),
            data_type: Some(data_type.into()),
            optional,
        };
        let typed = |path: &str, data_type: &str| TypedColumn { path: path.into(), data_type: data_type.into() };
        Ok(SimpleBinding {
            reads: vec![read("amount", "int64", false), read("say.text", "string", true)],
            removes: Vec::new(),
            renames: Vec::new(),
            replaces: Vec::new(),
            adds: vec![typed("double", "int64 not null"), typed("louder", "string")],
            wide_integers_as_texts: false,
        })
    }

    fn apply_simple(batch: SimpleBatch) -> SimpleEdits {
        let most = MOST.load(Ordering::Relaxed);
        let rows = batch.rows as usize;
        let Some(Values::Integers(amounts)) = batch.columns.first() else { panic!("the amounts are integers") };
        let nothing = vec![None; rows];
        let texts = match batch.columns.get(1) {
            Some(Values::Texts(texts)) => texts,
            _ => &nothing,
        };
        let (mut verdicts, mut doubles, mut louder) = (Vec::new(), Vec::new(), Vec::new());
        for (amount, text) in amounts.iter().zip(texts) {
            let Some(amount) = *amount else {
                metrics::count("without_amount", 1);
                verdicts.push(Verdict::Drop);
                continue;
            };
            if amount > most {
                let message = format!("{most} is the most");
                verdicts.push(Verdict::Reject(Rejection { code: "TOO_LARGE".into(), message }));
                continue;
            }
            verdicts.push(if amount > most / 2 { Verdict::Route(1) } else { Verdict::Keep });
            let is_twice = text.as_deref() == Some("twice");
            if is_twice {
                verdicts.push(Verdict::Emit(0));
            }
            for _ in 0..=usize::from(is_twice) {
                doubles.push(Some(amount.wrapping_mul(2)));
                louder.push(text.as_ref().map(|text| text.to_uppercase()));
            }
        }
        SimpleEdits { verdicts, computed: vec![Values::Integers(doubles), Values::Texts(louder)] }
    }
}

export!(Bare);
