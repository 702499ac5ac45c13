use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, ItemFn, LitStr, Result, Token, Type, Visibility, parenthesized};

const READS: [&str; 5] = ["keys", "values", "headers", "timestamps", "offsets"];

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    version: Option<LitStr>,
    reads: Option<Vec<Ident>>,
    outputs: Vec<(Ident, LitStr)>,
    config: Option<Type>,
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
                _ => {
                    return Err(Error::new_spanned(key, "expected name, version, reads, outputs or config"));
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

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Arguments { name, version, reads, outputs, config } = syn::parse2(arguments)?;
    let function: ItemFn = syn::parse2(item)?;
    let ident = &function.sig.ident;
    if function.sig.inputs.len() != 3 {
        return Err(Error::new_spanned(
            &function.sig,
            "a record transform takes (record: &Record<'_>, ctx: &Context<..>, out: &mut Edit<'_>)",
        ));
    }
    let name = name.map_or_else(|| ident.to_string().replace('_', "-"), |n| n.value());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(1..=64).contains(&name.len()) || !name.chars().all(is_name) {
        return Err(Error::new_spanned(ident, "a name is 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    let version = version.map_or_else(|| quote!(env!("CARGO_PKG_VERSION")), |v| quote!(#v));
    let description = crate::config::doc(&function.attrs);
    let config = config.map_or_else(|| quote!(::gristmill_transform::NoConfig), |c| quote!(#c));
    let read = |part: &str| match &reads {
        Some(parts) => parts.iter().any(|p| p == part),
        None => part == "values",
    };
    let [keys, values, headers, timestamps, offsets] = READS.map(read);
    let names = outputs.iter().map(|(n, _)| n.to_string());
    let descriptions = outputs.iter().map(|(_, d)| d);
    let inner = inside(&function.vis);
    let constants = outputs.iter().enumerate().map(|(i, (n, d))| {
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
    Ok(quote! {
        #function

        #[doc = #about]
        #visibility mod #ident {
            #(#constants)*

            /// The transform, for a test harness.
            #[derive(Debug, Clone, Copy)]
            #[allow(dead_code)]
            #inner struct Transform;
        }

        const _: () = {
            impl ::gristmill_transform::Transform for #ident::Transform {
                type Config = #config;
                const MANIFEST: ::gristmill_transform::Manifest = ::gristmill_transform::Manifest {
                    name: #name,
                    version: #version,
                    description: #description,
                    outputs: &[#((#names, #descriptions)),*],
                    reads: ::gristmill_transform::Reads {
                        keys: #keys,
                        values: #values,
                        headers: #headers,
                        timestamps: #timestamps,
                        offsets: #offsets,
                    },
                };

                #[inline]
                fn apply(
                    record: &::gristmill_transform::Record<'_>,
                    context: &::gristmill_transform::Context<Self::Config>,
                    out: &mut ::gristmill_transform::Edit<'_>,
                ) -> ::core::result::Result<::gristmill_transform::Outcome, ::gristmill_transform::Reject> {
                    #ident(record, context, out)
                }
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                use ::gristmill_transform::private::{self, bindings};

                struct Component;
                static CELL: private::Cell<#ident::Transform> = private::Cell::empty();

                impl bindings::Guest for Component {
                    fn describe() -> bindings::Manifest {
                        private::describe::<#ident::Transform>()
                    }

                    fn configure(
                        configuration: bindings::Configuration,
                    ) -> ::core::result::Result<(), ::std::string::String> {
                        private::configure(&CELL, configuration)
                    }

                    fn apply(batch: bindings::RecordBatch) -> bindings::Edits {
                        private::apply(&CELL, batch)
                    }
                }

                bindings::export!(Component with_types_in bindings);
            };
        };
    })
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
