//! What the attributes of transforms have in common.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, ItemFn, LitStr, Result, Token, Type, Visibility, parenthesized};

pub(crate) const READS: [&str; 5] = ["keys", "values", "headers", "timestamps", "offsets"];

/// What a transform's attribute may say.
#[derive(Default)]
pub(crate) struct Arguments {
    name: Option<LitStr>,
    version: Option<LitStr>,
    /// Of records.
    pub(crate) reads: Option<Vec<Ident>>,
    outputs: Vec<(Ident, LitStr)>,
    config: Option<Type>,
    /// Of columns.
    pub(crate) remove: Vec<LitStr>,
    /// Of columns.
    pub(crate) rename: Vec<(LitStr, LitStr)>,
}

struct RenameArgument(LitStr, LitStr);

impl Parse for RenameArgument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let from = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(RenameArgument(from, input.parse()?))
    }
}

struct OutputArgument {
    name: Ident,
    description: LitStr,
}

impl Parse for OutputArgument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(OutputArgument { name, description: input.parse()? })
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Arguments::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "name" => arguments.name = Some(value(input)?),
                "version" => arguments.version = Some(value(input)?),
                "config" => arguments.config = Some(value(input)?),
                "reads" => {
                    let parts = list::<Ident>(input)?;
                    if let Some(odd) = parts.iter().find(|p| !READS.contains(&p.to_string().as_str())) {
                        return Err(Error::new_spanned(odd, format!("reads takes {}", READS.join(", "))));
                    }
                    arguments.reads = Some(parts);
                }
                "outputs" => {
                    for output in list::<OutputArgument>(input)? {
                        if output.name == "main" || arguments.outputs.iter().any(|(n, _)| *n == output.name) {
                            return Err(Error::new_spanned(
                                output.name,
                                "output names differ, and `main` is always there",
                            ));
                        }
                        arguments.outputs.push((output.name, output.description));
                    }
                }
                "remove" => arguments.remove = list::<LitStr>(input)?,
                "rename" => {
                    let renames = list::<RenameArgument>(input)?;
                    arguments.rename = renames.into_iter().map(|r| (r.0, r.1)).collect();
                }
                _ => {
                    let known = "expected name, version, outputs, config; reads (of records); remove, rename (of columns)";
                    return Err(Error::new_spanned(key, known));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn list<T: Parse>(input: ParseStream<'_>) -> Result<Vec<T>> {
    let inner;
    parenthesized!(inner in input);
    Ok(Punctuated::<T, Token![,]>::parse_terminated(&inner)?.into_iter().collect())
}

/// The tokens that every transform needs.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) version: TokenStream,
    pub(crate) description: String,
    pub(crate) config: TokenStream,
    /// Pairs of name and description.
    pub(crate) outputs: TokenStream,
    /// The module beside the function.
    pub(crate) module: TokenStream,
}

impl Arguments {
    pub(crate) fn parts(&self, function: &ItemFn) -> Result<Parts> {
        let ident = &function.sig.ident;
        let name = self.name.as_ref().map_or_else(|| ident.to_string().replace('_', "-"), LitStr::value);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&name.len()) || !name.chars().all(is_name) {
            return Err(Error::new_spanned(ident, "a name is 1 to 64 letters, digits, `-`, `_` or `.`"));
        }
        let version = self.version.as_ref().map_or_else(|| quote!(env!("CARGO_PKG_VERSION")), |v| quote!(#v));
        let description = crate::config::doc(&function.attrs);
        let config =
            self.config.as_ref().map_or_else(|| quote!(::gristmill_transform::NoConfig), |c| quote!(#c));
        let inner = inside(&function.vis);
        let constants = self.outputs.iter().enumerate().map(|(i, (n, d))| {
            let constant = format_ident!("{}", n.to_string().to_uppercase());
            let number = i as u32 + 1;
            quote! {
                #[doc = #d]
                #[allow(dead_code)]
                #inner const #constant: ::gristmill_transform::Output = ::gristmill_transform::Output::new(#number);
            }
        });
        let visibility = &function.vis;
        let about = format!("What belongs to the transform `{name}`.");
        let module = quote! {
            #[doc = #about]
            #visibility mod #ident {
                #(#constants)*

                /// The transform, for a test harness.
                #[derive(Debug, Clone, Copy)]
                #[allow(dead_code)]
                #inner struct Transform;
            }
        };
        let names = self.outputs.iter().map(|(n, _)| n.to_string());
        let descriptions = self.outputs.iter().map(|(_, d)| d);
        let outputs = quote!(#((#names, #descriptions)),*);
        Ok(Parts { name, version, description, config, outputs, module })
    }
}

/// The function's visibility, said one module further in: the configuration may be as private as it is.
fn inside(visibility: &Visibility) -> TokenStream {
    match visibility {
        Visibility::Inherited => quote!(pub(super)),
        Visibility::Public(_) => quote!(pub),
        Visibility::Restricted(r) if r.path.is_ident("crate") => quote!(pub(crate)),
        Visibility::Restricted(r) => {
            let path = &r.path;
            let absolute = path.segments.first().is_some_and(|s| s.ident == "crate");
            if absolute { quote!(pub(in #path)) } else { quote!(pub(in super::#path)) }
        }
    }
}
