//! The test kit of WSK drivers: the provider on a user-mode kernel, with a checker of every rule.

mod callback;
pub mod raw;
