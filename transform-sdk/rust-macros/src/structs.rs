//! Structs as values of columns.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{DeriveInput, Error, Lifetime, Result};

use crate::row::{named, parts, relifed};

pub(crate) fn derive_value(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let ident = &input.ident;
    let (fields, lifetime) = parts(&input, "Value")?;
    let lifetime = lifetime.unwrap_or_else(|| Lifetime::new("'column", Span::call_site()));
    let own = match input.generics.params.is_empty() {
        true => quote!(),
        false => quote!(<#lifetime>),
    };
    let members: Vec<(String, bool)> =
        fields.iter().map(|f| named(f, "value", "name", true)).collect::<Result<_>>()?;
    let (names, optional): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let idents: Vec<_> = fields.iter().map(|f| f.ident.as_ref().expect("named")).collect();
    let types: Vec<_> = fields.iter().map(|f| relifed(&f.ty, &lifetime.to_string())).collect();
    let count = fields.len() as u32;
    let cursor = format_ident!("{ident}Cursor");
    Ok(quote! {
        const _: () = {
            use ::gristmill_transform::private;

            pub struct #cursor<#lifetime> {
                #(#idents: <#types as ::gristmill_transform::Value<#lifetime>>::Cursor,)*
                __nothing: ::core::marker::PhantomData<&#lifetime ()>,
            }

            impl ::core::clone::Clone for #cursor<'_> {
                fn clone(&self) -> Self {
                    *self
                }
            }

            impl ::core::marker::Copy for #cursor<'_> {}

            impl<#lifetime> ::gristmill_transform::Value<#lifetime> for #ident #own {
                type Cursor = #cursor<#lifetime>;

                fn describe() -> ::std::string::String {
                    let members: ::std::vec::Vec<::std::string::String> = ::std::vec![
                        #(::std::format!("{}: {}", #names, <#types as ::gristmill_transform::Value<#lifetime>>::describe())),*
                    ];
                    ::std::format!("struct<{}>", members.join(", "))
                }

                fn accepts(fields: &[::gristmill_transform::Field]) -> bool {
                    fields.first().is_some_and(|field| field.data_type == ::gristmill_transform::DataType::Struct)
                        #(&& private::accepts_member::<#types>(fields, #names, #optional))*
                }

                fn example() -> ::std::vec::Vec<::gristmill_transform::Field> {
                    let mut fields = private::struct_of(#count);
                    #(fields.extend(private::named(#names, <#types as ::gristmill_transform::Value<#lifetime>>::example()));)*
                    fields
                }

                fn open(
                    fields: &[::gristmill_transform::Field],
                    _: private::Validity<#lifetime>,
                    nodes: &mut private::Nodes<#lifetime>,
                ) -> Self::Cursor {
                    let cursor = #cursor {
                        #(#idents: private::open_member::<#types>(fields, nodes, #names),)*
                        __nothing: ::core::marker::PhantomData,
                    };
                    private::skip_members(fields, nodes);
                    cursor
                }

                #[inline]
                fn get(cursor: &Self::Cursor, row: usize) -> Self {
                    #ident {
                        #(#idents: <#types as ::gristmill_transform::Value<#lifetime>>::get(&cursor.#idents, row),)*
                    }
                }
            }
        };
    })
}

pub(crate) fn derive_compute(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let ident = &input.ident;
    let (fields, _) = parts(&input, "Compute")?;
    let members: Vec<(String, bool)> =
        fields.iter().map(|f| named(f, "compute", "name", false)).collect::<Result<_>>()?;
    let names: Vec<_> = members.into_iter().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Err(Error::new_spanned(ident, "a computed struct has a member"));
    }
    let idents: Vec<_> = fields.iter().map(|f| f.ident.as_ref().expect("named")).collect();
    let types: Vec<_> = fields.iter().map(|f| relifed(&f.ty, "'static")).collect();
    let own: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let count = fields.len() as u32;
    let numbers = 0..fields.len();
    let builder = format_ident!("{ident}Builder");
    let (impl_generics, type_generics, _) = input.generics.split_for_impl();
    Ok(quote! {
        const _: () = {
            use ::gristmill_transform::private::{self, ColumnBuilder as _};

            #[derive(Default)]
            pub struct #builder {
                __valid: private::Valid,
                #(#idents: <#types as ::gristmill_transform::Compute>::Builder,)*
            }

            impl private::ColumnBuilder for #builder {
                fn append(&mut self, from: &private::Array<'_>, values: ::core::ops::Range<usize>) {
                    for (is_there, values) in from.runs(&values) {
                        if !is_there {
                            self.nulls(values.len());
                            continue;
                        }
                        self.__valid.append(from, &values);
                        #(self.#idents.append(from.child(#numbers), values.clone());)*
                    }
                }

                fn nulls(&mut self, count: usize) {
                    self.__valid.nulls(count);
                    #(self.#idents.nulls(count);)*
                }

                fn finish(&mut self, answer: &mut private::Answer) {
                    self.__valid.finish(answer);
                    #(self.#idents.finish(answer);)*
                }
            }

            impl #impl_generics ::gristmill_transform::Compute for #ident #type_generics {
                type Builder = #builder;

                fn fields() -> ::std::vec::Vec<::gristmill_transform::Field> {
                    let mut fields = private::struct_of(#count);
                    #(fields.extend(private::named(#names, <#types as ::gristmill_transform::Compute>::fields()));)*
                    fields
                }

                #[inline]
                fn append_to(self, builder: &mut Self::Builder) {
                    builder.__valid.push(true);
                    #(<#own as ::gristmill_transform::Compute>::append_to(self.#idents, &mut builder.#idents);)*
                }

                fn push_null(builder: &mut Self::Builder) {
                    builder.__valid.push(false);
                    #(<#own as ::gristmill_transform::Compute>::push_null(&mut builder.#idents);)*
                }
            }
        };
    })
}
