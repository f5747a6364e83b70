//! Access to members of the provider's tables, as in a C driver.

/// A member of a table of the provider.
macro_rules! member {
    ($socket:expr, $table:ident . $member:ident) => {{
        let table = $socket.dispatch().cast::<$table>();
        // SAFETY: the tables of the provider are constant, and the category implies this type.
        unsafe { (*table).$member }.expect(concat!("the table has ", stringify!($member)))
    }};
}

/// A member that listening, connection, datagram and stream tables have at different offsets.
macro_rules! member_of {
    ($socket:expr, $member:ident: $($category:ident => $table:ident),+) => {
        match $socket.category() {
            $(Category::$category => member!($socket, $table.$member),)+
            #[allow(unreachable_patterns)]
            other => panic!(concat!("a {:?} socket has no ", stringify!($member)), other),
        }
    };
}

pub(crate) use {member, member_of};
