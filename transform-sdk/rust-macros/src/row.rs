use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Data, DeriveInput, Error, Fields, FnArg, GenericArgument, Generics, ItemFn, Lifetime, LitStr,
    PathArguments, Result, Token, Type,
};

use crate::arguments::{Arguments, Parts};

/// What the function takes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Takes {
    Row,
    Rows,
}

pub(crate) fn expand(takes: Takes, arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let function: ItemFn = syn::parse2(item)?;
    let ident = &function.sig.ident;
    if let Some(part) = arguments.reads.iter().flatten().next() {
        return Err(Error::new_spanned(part, "a transform of columns reads what its row has"));
    }
    let (row, computed) = types(takes, &function)?;
    let call = match takes {
        Takes::Row => quote!(each_row),
        Takes::Rows => quote!(all_rows),
    };
    let Parts { name, version, description, config, outputs, module } = arguments.parts(&function)?;
    let (row_static, computed_static) = (relifed(&row, "'static"), relifed(&computed, "'static"));
    let (row, computed) = (relifed(&row, "'batch"), relifed(&computed, "'batch"));
    let removes = &arguments.remove;
    let native = crate::native(&quote!(of_columns::<#ident::Transform>()));
    let (from, to): (Vec<_>, Vec<_>) = arguments.rename.iter().cloned().unzip();
    Ok(quote! {
        #function

        #module

        const _: () = {
            use ::gristmill_transform::private;

            impl ::gristmill_transform::ColumnTransform for #ident::Transform {
                type Config = #config;
                type Builders = <#computed_static as ::gristmill_transform::Columns>::Builders;
                const MANIFEST: ::gristmill_transform::Manifest = ::gristmill_transform::Manifest {
                    name: #name,
                    version: #version,
                    description: #description,
                    outputs: &[#outputs],
                    reads: ::gristmill_transform::Reads {
                        keys: false,
                        values: false,
                        headers: false,
                        timestamps: false,
                        offsets: false,
                    },
                };

                fn needs() -> ::std::vec::Vec<private::Need> {
                    <#row_static as ::gristmill_transform::Row<'static>>::needs()
                }

                fn changes() -> ::std::vec::Vec<private::Change> {
                    #[allow(unused_mut)]
                    let mut changes = <#computed_static as ::gristmill_transform::Columns>::changes();
                    #(changes.push(private::Change::Remove(#removes));)*
                    #(changes.push(private::Change::Rename(#from, #to));)*
                    changes
                }

                #[inline]
                fn apply<'batch>(
                    batch: &::gristmill_transform::Batch<'batch>,
                    context: &'batch ::gristmill_transform::Context<Self::Config>,
                    builders: &mut Self::Builders,
                    edits: &mut private::EditWriter,
                ) {
                    private::#call::<#row, #computed, Self::Config>(batch, context, builders, edits, #ident)
                }

                fn finish(builders: &mut Self::Builders, answer: &mut private::Answer) {
                    <#computed_static as ::gristmill_transform::Columns>::finish(builders, answer)
                }
            }

            #native

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                use private::columns as bindings;

                struct Component;
                static CELL: private::ColumnCell<#ident::Transform> = private::ColumnCell::empty();

                impl bindings::Guest for Component {
                    fn describe() -> bindings::Manifest {
                        private::describe_columns::<#ident::Transform>()
                    }

                    fn configure_columns(
                        configuration: bindings::ColumnConfiguration,
                    ) -> ::core::result::Result<bindings::Binding, ::std::string::String> {
                        private::configure_columns(&CELL, configuration)
                    }

                    fn apply_columns(batch: bindings::ColumnBatch) -> bindings::ColumnEdits {
                        private::apply_columns(&CELL, batch)
                    }
                }

                bindings::export!(Component with_types_in bindings);
            };
        };
    })
}

/// The row's type, from `&Row` or `&Rows<'a, Row>`, and that of what is computed, from `&mut RowEdit<..>` or `RowsEdit`.
fn types(takes: Takes, function: &ItemFn) -> Result<(Type, Type)> {
    let wrong = || {
        let text = match takes {
            Takes::Row => {
                "a transform of rows takes (row: &Row<'a>, ctx: &Context<..>, out: &mut RowEdit<Computed<'a>>) and returns \
                 Result<RowOutcome<Computed<'a>>, Reject>"
            }
            Takes::Rows => {
                "a transform of columns takes (rows: &Rows<'a, Row<'a>>, ctx: &Context<..>, out: &mut RowsEdit<'_, \
                 Computed<'a>>) and returns nothing"
            }
        };
        Error::new_spanned(&function.sig, text)
    };
    let inputs: Vec<&Type> = function
        .sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let [Type::Reference(row), _, Type::Reference(edit)] = inputs.as_slice() else { return Err(wrong()) };
    let row = match takes {
        Takes::Row => (*row.elem).clone(),
        Takes::Rows => argument(&row.elem).flatten().ok_or_else(wrong)?,
    };
    let computed = argument(&edit.elem).ok_or_else(wrong)?;
    Ok((row, computed.unwrap_or_else(|| syn::parse_quote!(()))))
}

/// The type that a generic type is given, if it is given one; nothing for what is no such type.
fn argument(ty: &Type) -> Option<Option<Type>> {
    let Type::Path(path) = ty else { return None };
    match &path.path.segments.last()?.arguments {
        PathArguments::None => Some(None),
        PathArguments::AngleBracketed(generics) => {
            Some(generics.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            }))
        }
        PathArguments::Parenthesized(_) => None,
    }
}

/// The type with every lifetime replaced.
pub(crate) fn relifed(ty: &Type, lifetime: &str) -> Type {
    let mut ty = ty.clone();
    relife(&mut ty, &Lifetime::new(lifetime, Span::call_site()));
    ty
}

fn relife(ty: &mut Type, with: &Lifetime) {
    match ty {
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                let PathArguments::AngleBracketed(generics) = &mut segment.arguments else { continue };
                for argument in &mut generics.args {
                    match argument {
                        GenericArgument::Lifetime(lifetime) => lifetime.clone_from(with),
                        GenericArgument::Type(ty) => relife(ty, with),
                        _ => {}
                    }
                }
            }
        }
        Type::Reference(reference) => {
            reference.lifetime = Some(with.clone());
            relife(&mut reference.elem, with);
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(|ty| relife(ty, with)),
        Type::Array(array) => relife(&mut array.elem, with),
        Type::Slice(slice) => relife(&mut slice.elem, with),
        Type::Paren(paren) => relife(&mut paren.elem, with),
        Type::Group(group) => relife(&mut group.elem, with),
        _ => {}
    }
}

/// The fields of a struct, and its lifetime if it has one.
pub(crate) fn parts<'a>(
    input: &'a DeriveInput,
    what: &str,
) -> Result<(Vec<&'a syn::Field>, Option<Lifetime>)> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, format!("{what} is derived on structs")));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(
            &input.ident,
            format!("{what} is derived on structs with named fields"),
        ));
    };
    let generics: &Generics = &input.generics;
    if generics.params.len() > 1
        || generics.type_params().next().is_some()
        || generics.const_params().next().is_some()
    {
        return Err(Error::new_spanned(generics, format!("{what} takes one lifetime at most")));
    }
    let lifetime = generics.lifetimes().next().map(|l| l.lifetime.clone());
    Ok((fields.named.iter().collect(), lifetime))
}

pub(crate) fn derive_row(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let ident = &input.ident;
    let (fields, lifetime) = parts(&input, "Row")?;
    let lifetime = lifetime.unwrap_or_else(|| Lifetime::new("'row", Span::call_site()));
    let own = match input.generics.params.is_empty() {
        true => quote!(),
        false => quote!(<#lifetime>),
    };
    let mut needs = Vec::new();
    for field in &fields {
        let (path, optional) = named(field, "row", "path", true)?;
        let ty = relifed(&field.ty, "'static");
        needs.push(quote! {
            private::Need {
                path: #path,
                data_type: <#ty as ::gristmill_transform::Value<'static>>::describe(),
                nullable: <#ty as ::gristmill_transform::Value<'static>>::NULLABLE,
                optional: #optional,
                accepts: <#ty as ::gristmill_transform::Value<'static>>::accepts,
                example: <#ty as ::gristmill_transform::Value<'static>>::example,
            }
        });
    }
    let names: Vec<_> = fields.iter().map(|f| f.ident.as_ref().expect("named")).collect();
    let types: Vec<_> = fields.iter().map(|f| relifed(&f.ty, &lifetime.to_string())).collect();
    let numbers = 0..fields.len();
    let columns = format_ident!("{ident}Columns");
    let abouts = fields.iter().map(|f| format!("What `{}` is read from.", f.ident.as_ref().expect("named")));
    let about = format!("The columns of `{ident}`.");
    Ok(quote! {
        const _: () = {
            use ::gristmill_transform::private;

            #[doc = #about]
            #[allow(private_interfaces)]
            pub struct #columns<#lifetime> {
                #(#[doc = #abouts] pub #names: ::gristmill_transform::Column<#lifetime, #types>,)*
                __nothing: ::core::marker::PhantomData<&#lifetime ()>,
            }

            impl<#lifetime> ::gristmill_transform::Row<#lifetime> for #ident #own {
                type Columns = #columns<#lifetime>;

                fn needs() -> ::std::vec::Vec<private::Need> {
                    ::std::vec![#(#needs),*]
                }

                fn open(batch: &::gristmill_transform::Batch<#lifetime>) -> Self::Columns {
                    // Who only reads whole columns reads these fields too, to the compiler's eyes.
                    let _ = |row: &Self| {
                        #(let _ = &row.#names;)*
                    };
                    #columns {
                        #(#names: batch.column::<#types>(#numbers),)*
                        __nothing: ::core::marker::PhantomData,
                    }
                }

                #[inline]
                fn get(columns: &Self::Columns, row: usize) -> Self {
                    #ident {
                        #(#names: columns.#names.value(row),)*
                    }
                }
            }
        };
    })
}

/// What a field is read from or written to, by default its name, and whether that may be missing.
pub(crate) fn named(
    field: &syn::Field,
    attribute: &str,
    key: &str,
    may_be_missing: bool,
) -> Result<(String, bool)> {
    let ident = field.ident.as_ref().expect("named");
    let (mut name, mut optional) = (ident.to_string().trim_start_matches("r#").to_owned(), false);
    for found in field.attrs.iter().filter(|a| a.path().is_ident(attribute)) {
        found.parse_nested_meta(|meta| {
            if meta.path.is_ident(key) {
                name = meta.value()?.parse::<LitStr>()?.value();
                return Ok(());
            }
            if may_be_missing && meta.path.is_ident("optional") {
                optional = true;
                return Ok(());
            }
            let or_optional = if may_be_missing { " or `optional`" } else { "" };
            Err(meta.error(format!("expected `{key} = \"..\"`{or_optional}")))
        })?;
    }
    if optional && !is_option(&field.ty) {
        return Err(Error::new_spanned(&field.ty, "what may be missing is an Option: it is null then"));
    }
    Ok((name, optional))
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == "Option"))
}

pub(crate) fn derive_columns(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let ident = &input.ident;
    let (fields, _) = parts(&input, "Columns")?;
    let generics = &input.generics;
    let mut changes = Vec::new();
    for field in &fields {
        let name = field.ident.as_ref().expect("named").to_string();
        let name = name.trim_start_matches("r#").to_owned();
        let mut found: Option<TokenStream> = None;
        let ty = relifed(&field.ty, "'static");
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("column")) {
            attribute.parse_nested_meta(|meta| {
                let path = |meta: &syn::meta::ParseNestedMeta<'_>| -> Result<String> {
                    match meta.input.peek(Token![=]) {
                        true => Ok(meta.value()?.parse::<LitStr>()?.value()),
                        false => Ok(name.clone()),
                    }
                };
                if found.is_some() {
                    return Err(meta.error("a column is either added or replaces one"));
                }
                if meta.path.is_ident("add") {
                    let name = path(&meta)?;
                    found = Some(quote!(private::Change::Add(private::named(
                        #name,
                        <#ty as ::gristmill_transform::Compute>::fields(),
                    ))));
                } else if meta.path.is_ident("replace") {
                    let path = path(&meta)?;
                    found = Some(quote!(private::Change::Replace(
                        #path,
                        <#ty as ::gristmill_transform::Compute>::fields(),
                    )));
                } else {
                    return Err(meta.error(
                        "expected `add` or `replace`, both with `= \"..\"` if it is not the field's name",
                    ));
                }
                Ok(())
            })?;
        }
        let Some(change) = found else {
            let text = "say `#[column(add)]` or `#[column(replace)]`, or either with `= \"..\"`";
            return Err(Error::new_spanned(field, text));
        };
        changes.push(change);
    }
    let names: Vec<_> = fields.iter().map(|f| f.ident.as_ref().expect("named")).collect();
    let types: Vec<_> = fields.iter().map(|f| relifed(&f.ty, "'static")).collect();
    let own: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let numbers = 0..fields.len();
    let builders = format_ident!("{ident}Builders");
    let (impl_generics, type_generics, _) = generics.split_for_impl();
    Ok(quote! {
        const _: () = {
            use ::gristmill_transform::private::{self, ColumnBuilder as _};

            #[derive(Default)]
            pub struct #builders {
                #(#names: <#types as ::gristmill_transform::Compute>::Builder,)*
            }

            impl #impl_generics ::gristmill_transform::Columns for #ident #type_generics {
                type Builders = #builders;

                fn changes() -> ::std::vec::Vec<private::Change> {
                    ::std::vec![#(#changes),*]
                }

                #[inline]
                fn append_to(self, builders: &mut Self::Builders) {
                    #(<#own as ::gristmill_transform::Compute>::append_to(self.#names, &mut builders.#names);)*
                }

                fn append_arrays(
                    builders: &mut Self::Builders,
                    from: &[private::Array<'_>],
                    parts: &[::core::ops::Range<usize>],
                ) {
                    #(parts.iter().for_each(|part| builders.#names.append(&from[#numbers], part.clone()));)*
                }

                fn finish(builders: &mut Self::Builders, answer: &mut private::Answer) {
                    #(builders.#names.finish(answer);)*
                }
            }
        };
    })
}
