use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Lit, LitStr, Meta, Path, Result};

/// The doc comment, its lines joined.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("doc")) {
        if let Meta::NameValue(doc) = &attribute.meta
            && let Expr::Lit(text) = &doc.value
            && let Lit::Str(text) = &text.lit
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    lines.join(" ").trim().to_owned()
}

/// What serde's attributes say that the schema must say too.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<LitStr>,
    default: bool,
}

fn serde(attributes: &[Attribute]) -> Result<Serde> {
    let mut found = Serde::default();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                found.rename = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("rename_all") {
                found.rename_all = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("default") {
                found.default = true;
                if meta.input.peek(syn::Token![=]) {
                    meta.value()?.parse::<LitStr>()?;
                }
            } else if meta.path.is_ident("deny_unknown_fields") {
                // What the schema says anyhow.
            } else {
                return Err(meta.error(
                    "Config understands serde's rename, rename_all, default and deny_unknown_fields: implement the \
                     trait by hand for others",
                ));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let ident = &input.ident;
    let outer = serde(&input.attrs)?;
    let check = check(&input.attrs)?;
    let description = describe(&doc(&input.attrs));
    let schema = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => {
                let fields: Vec<_> = fields.named.iter().map(|f| field(f, &outer)).collect::<Result<_>>()?;
                quote! {
                    let mut required = ::std::vec::Vec::<private::serde_json::Value>::new();
                    let mut properties = private::serde_json::Map::new();
                    #(#fields)*
                    let mut schema = private::serde_json::Map::new();
                    schema.insert("type".into(), "object".into());
                    schema.insert("properties".into(), properties.into());
                    schema.insert("required".into(), required.into());
                    schema.insert("additionalProperties".into(), false.into());
                    let mut schema = private::serde_json::Value::from(schema);
                }
            }
            _ => return Err(Error::new_spanned(ident, "Config is derived on structs with named fields")),
        },
        Data::Enum(data) => {
            let names: Vec<String> = data
                .variants
                .iter()
                .map(|v| match v.fields {
                    Fields::Unit => name(&v.ident.to_string(), &serde(&v.attrs)?, &outer, true),
                    _ => Err(Error::new_spanned(v, "Config is derived on enums without fields")),
                })
                .collect::<Result<_>>()?;
            quote! {
                let mut schema = private::serde_json::Value::from(private::serde_json::Map::new());
                schema["enum"] = private::serde_json::Value::from(::std::vec![#(#names),*]);
            }
        }
        Data::Union(_) => return Err(Error::new_spanned(ident, "Config is not derived on unions")),
    };
    Ok(quote! {
        impl ::gristmill_transform::Config for #ident {
            fn schema() -> ::gristmill_transform::private::serde_json::Value {
                use ::gristmill_transform::private;
                #schema
                #description
                schema
            }

            #check
        }
    })
}

fn describe(text: &str) -> TokenStream {
    if text.is_empty() {
        return TokenStream::new();
    }
    quote!(schema["description"] = private::serde_json::Value::from(#text);)
}

fn check(attributes: &[Attribute]) -> Result<TokenStream> {
    let mut found = TokenStream::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("check") {
                return Err(meta.error("a type takes #[config(check = \"function\")]"));
            }
            let path: Path = meta.value()?.parse::<LitStr>()?.parse()?;
            found = quote! {
                fn check(&self) -> ::core::result::Result<(), ::std::string::String> {
                    #path(self)
                }
            };
            Ok(())
        })?;
    }
    Ok(found)
}

fn field(field: &Field, outer: &Serde) -> Result<TokenStream> {
    let ident = field.ident.as_ref().expect("named fields have names");
    let serde = serde(&field.attrs)?;
    let name = name(ident.to_string().trim_start_matches("r#"), &serde, outer, false)?;
    let ty = &field.ty;
    let mut marks = vec![describe(&doc(&field.attrs))];
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("secret") {
                marks.push(quote!(schema["writeOnly"] = private::serde_json::Value::from(true);));
            } else if meta.path.is_ident("minimum") || meta.path.is_ident("maximum") {
                let keyword = meta.path.get_ident().map(ToString::to_string);
                let bound: Expr = meta.value()?.parse()?;
                marks.push(quote!(schema[#keyword] = private::serde_json::Value::from(#bound);));
            } else {
                return Err(meta.error("a field takes #[config(secret)], minimum and maximum"));
            }
            Ok(())
        })?;
    }
    let required = if serde.default || outer.default {
        TokenStream::new()
    } else {
        quote! {
            if <#ty as ::gristmill_transform::Config>::REQUIRED {
                required.push(#name.into());
            }
        }
    };
    Ok(quote! {
        {
            #[allow(unused_mut)]
            let mut schema = <#ty as ::gristmill_transform::Config>::schema();
            #(#marks)*
            properties.insert(#name.into(), schema);
            #required
        }
    })
}

/// The name as serde spells it.
fn name(ident: &str, own: &Serde, outer: &Serde, variant: bool) -> Result<String> {
    if let Some(name) = &own.rename {
        return Ok(name.clone());
    }
    let Some(rule) = &outer.rename_all else { return Ok(ident.to_owned()) };
    let mut words: Vec<String> = Vec::new();
    if variant {
        for c in ident.chars() {
            if c.is_uppercase() || words.is_empty() {
                words.push(String::new());
            }
            words.last_mut().expect("one was pushed").extend(c.to_lowercase());
        }
    } else {
        words = ident.split('_').map(str::to_owned).collect();
    }
    let capital = |w: &String| {
        let mut chars = w.chars();
        chars.next().map(|c| c.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    Ok(match rule.value().as_str() {
        "lowercase" => words.concat(),
        "UPPERCASE" => words.concat().to_uppercase(),
        "PascalCase" => words.iter().map(capital).collect(),
        "camelCase" => {
            words.iter().enumerate().map(|(i, w)| if i == 0 { w.clone() } else { capital(w) }).collect()
        }
        "snake_case" => words.join("_"),
        "SCREAMING_SNAKE_CASE" => words.join("_").to_uppercase(),
        "kebab-case" => words.join("-"),
        "SCREAMING-KEBAB-CASE" => words.join("-").to_uppercase(),
        _ => return Err(Error::new_spanned(rule, "not a rule of serde's rename_all")),
    })
}
