//! C enumerations as transparent newtypes: a foreign number is an unnamed value, never undefined behavior.

/// Declares a C enumeration with its members as associated constants and under their header names.
macro_rules! c_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i32);

        impl $name {
            $($(#[$member_doc])* pub const $member: Self = Self($value);)*
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$member => f.write_str(stringify!($member)),)*
                    Self(other) => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }

        $($(#[$member_doc])* pub const $member: $name = $name::$member;)*
    };
}
pub(crate) use c_enum;
