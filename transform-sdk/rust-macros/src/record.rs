use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result};

use crate::arguments::{Arguments, Parts, READS};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let function: ItemFn = syn::parse2(item)?;
    let ident = &function.sig.ident;
    if function.sig.inputs.len() != 3 {
        return Err(Error::new_spanned(
            &function.sig,
            "a record transform takes (record: &Record<'_>, ctx: &Context<..>, out: &mut Edit<'_>)",
        ));
    }
    if let Some(path) = arguments.remove.iter().chain(arguments.rename.iter().map(|(from, _)| from)).next() {
        return Err(Error::new_spanned(path, "a transform of records has no columns: see `row`"));
    }
    let Parts { name, version, description, config, outputs, module } = arguments.parts(&function)?;
    let read = |part: &str| match &arguments.reads {
        Some(parts) => parts.iter().any(|p| p == part),
        None => part == "values",
    };
    let [keys, values, headers, timestamps, offsets] = READS.map(read);
    let native = crate::native(&quote!(of_records::<#ident::Transform>()));
    Ok(quote! {
        #function

        #module

        const _: () = {
            impl ::gristmill_transform::Transform for #ident::Transform {
                type Config = #config;
                const MANIFEST: ::gristmill_transform::Manifest = ::gristmill_transform::Manifest {
                    name: #name,
                    version: #version,
                    description: #description,
                    outputs: &[#outputs],
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

            #native

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
