//! What the Windows suites do not show under Wine, and why.

/// Suites that cannot be run there at all.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[(
    "wsk::compile_fail",
    "it asks the compiler, and there is none for Windows; what it asks does not depend on the system",
)];

/// A test that fails under Wine for a reason of Wine's own. It is run, and must fail.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) suite: &'static str,
    pub(super) test: &'static str,
    pub(super) why: &'static str,
}

/// All of them.
pub(super) const FAILING: &[Failing] = &[];
