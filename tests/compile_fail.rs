//! Code that does not compile cannot go wrong: each file in `compile_fail` is a mistake that the types do not
//! allow.

/// The answers of the compiler are recorded next to the files.
#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
