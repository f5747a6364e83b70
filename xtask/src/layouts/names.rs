//! Names to compare: read from the sources of `wsk-sys`, so that none can be forgotten.

use std::path::Path;

use anyhow::{Context as _, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Fields, Item, Visibility};

use crate::cross;

/// A structure or an enumeration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Structure {
    /// Its name, the same in Rust and in C.
    pub name: String,
    /// The path of each field in Rust and in C.
    pub fields: Vec<(String, String)>,
}

/// A number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constant {
    /// Its name, the same in Rust and in C.
    pub name: String,
    /// A member of an enumeration, which no preprocessor knows.
    pub enumerator: bool,
}

/// All names of one crate.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub structures: Vec<Structure>,
    pub constants: Vec<Constant>,
}

/// Fields whose name differs: `(structure, in Rust, in C)`. In C they are unions.
const RENAMED: [(&str, &str, &str); 3] =
    [("NPI_MODULEID", "Value", "Guid"), ("IN_ADDR", "s_b", "S_un"), ("IN6_ADDR", "Byte", "u")];

/// Types of constants that are plain numbers.
const NUMBERS: [&str; 8] = ["ADDRESS_FAMILY", "NTSTATUS", "i32", "u8", "u16", "u32", "u64", "usize"];

/// Reads the sources in a directory, not those below it: those bind the kernel's own types.
pub(super) fn read(sources: &Path) -> Result<Names> {
    let mut names = Names::default();
    for file in cross::sources(sources, "rs")? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        collect(&text, &mut names).with_context(|| format!("{} is not Rust", file.display()))?;
    }
    anyhow::ensure!(!names.structures.is_empty(), "there are no structures in {}", sources.display());
    Ok(names)
}

fn collect(text: &str, names: &mut Names) -> syn::Result<()> {
    for item in syn::parse_file(text)?.items {
        match item {
            Item::Struct(item) if is_public(&item.vis) && has_c_layout(&item.attrs) => {
                let Fields::Named(fields) = item.fields else { continue };
                let name = item.ident.to_string();
                let fields = fields.named.iter().filter(|field| is_public(&field.vis)).filter_map(|field| {
                    let rust = field.ident.as_ref()?.to_string();
                    let c = RENAMED.iter().find(|(of, from, _)| *of == name && *from == rust);
                    Some((rust.clone(), c.map_or(rust, |(_, _, to)| (*to).to_owned())))
                });
                let fields = fields.collect();
                names.structures.push(Structure { name, fields });
            }
            Item::Const(item) if is_public(&item.vis) => {
                let syn::Type::Path(path) = &*item.ty else { continue };
                if path.path.get_ident().is_some_and(|ident| NUMBERS.iter().any(|number| ident == number)) {
                    names.constants.push(Constant { name: item.ident.to_string(), enumerator: false });
                }
            }
            Item::Macro(item) if item.ident.is_none() => {
                let Some(used) = item.mac.path.get_ident().map(ToString::to_string) else { continue };
                match used.as_str() {
                    "constants" | "statuses" => constants(item.mac.tokens, false, names),
                    "c_enum" => enumeration(item.mac.tokens, names),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn has_c_layout(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut c = false;
        let parsed = attribute.path().is_ident("repr")
            && attribute
                .parse_nested_meta(|meta| {
                    c |= meta.path.is_ident("C");
                    // `align(8)`: what is in the parentheses does not matter here.
                    if meta.input.peek(syn::token::Paren) {
                        let inside;
                        syn::parenthesized!(inside in meta.input);
                        let _: TokenStream = inside.parse()?;
                    }
                    Ok(())
                })
                .is_ok();
        parsed && c
    })
}

/// The constants of a macro's body: each identifier with which a statement begins, `NAME = …` or `NAME: type
/// = …`.
fn constants(body: TokenStream, enumerator: bool, names: &mut Names) {
    let mut begins = true;
    for token in body {
        match token {
            TokenTree::Ident(ident) if begins => {
                names.constants.push(Constant { name: ident.to_string(), enumerator });
                begins = false;
            }
            // A doc comment: `#` and a group.
            TokenTree::Punct(mark) if mark.as_char() == '#' => {}
            TokenTree::Group(group) if begins && group.delimiter() == Delimiter::Bracket => {}
            TokenTree::Punct(end) if matches!(end.as_char(), ';' | ',') => begins = true,
            _ => begins = false,
        }
    }
}

/// An enumeration: a type without fields, and its members.
fn enumeration(body: TokenStream, names: &mut Names) {
    for token in body {
        match token {
            TokenTree::Ident(ident) => {
                names.structures.push(Structure { name: ident.to_string(), fields: Vec::new() });
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                constants(group.stream(), true, names);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_enumerations_and_constants_are_found() {
        let text = r"
            /// A structure.
            #[repr(C, align(8))]
            #[derive(Clone)]
            pub struct PAIR { /// One.
                pub One: u32, pub Two: *mut u8 }
            #[repr(C)] struct PRIVATE { one: u32 }
            pub struct RUST { pub one: u32 }
            #[repr(C)] pub struct NPI_MODULEID { pub Value: u8 }
            pub const NUMBER: u32 = 3;
            pub const ROUTINE: fn() = run;
            macro_rules! constants { ($($name:ident),*) => {} }
            constants! { /// One.
                ONE: u16 = 1; TWO: u16 = call(1, 2); }
            c_enum! { /// Kinds.
                KIND { /// First.
                    KindFirst = 0, KindLast = 1, } }
        ";
        let mut names = Names::default();
        collect(text, &mut names).unwrap();
        let structures: Vec<_> = names.structures.iter().map(|s| (s.name.as_str(), s.fields.len())).collect();
        assert_eq!(structures, [("PAIR", 2), ("NPI_MODULEID", 1), ("KIND", 0)]);
        assert_eq!(names.structures[1].fields, [("Value".to_owned(), "Guid".to_owned())]);
        let constants: Vec<_> = names.constants.iter().map(|c| (c.name.as_str(), c.enumerator)).collect();
        let expected =
            [("NUMBER", false), ("ONE", false), ("TWO", false), ("KindFirst", true), ("KindLast", true)];
        assert_eq!(constants, expected);
    }

    #[test]
    fn sources_are_found_in_a_directory_of_any_name() {
        let place = tempfile::Builder::new().prefix("a[b]").tempdir().unwrap();
        std::fs::write(place.path().join("one.rs"), "#[repr(C)] pub struct ONE { pub one: u32 }").unwrap();
        assert_eq!(read(place.path()).unwrap().structures.len(), 1);
    }

    #[test]
    fn the_crate_is_read_as_a_whole() {
        let names = read(&crate::workspace_root().join("crates/wsk-sys/src")).unwrap();
        for name in ["WSK_BUF", "WSK_PROVIDER_STREAM_DISPATCH", "SOCKADDR_STORAGE", "WSK_INSPECT_ACTION"] {
            assert!(names.structures.iter().any(|structure| structure.name == name), "{name}");
        }
        for name in ["SIO_WSK_QUERY_INSPECT_ID", "AF_INET6", "STATUS_PENDING", "WskInspectPend", "IOC_WSK"] {
            assert!(names.constants.iter().any(|constant| constant.name == name), "{name}");
        }
    }
}
