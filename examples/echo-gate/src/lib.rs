//! An echo service with a gate in front: the part of the conditional-accept sample that does not depend on where
//! it runs. The user-mode example and the sample driver are fronts to it.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod policy;
pub mod record;
