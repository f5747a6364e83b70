//! Links the image to the loader's kernel.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_image = env::var_os("CARGO_FEATURE_IMAGE").is_some()
        && env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows");
    if is_image {
        // After the objects, so that the image's own definitions come before those of the kernel.
        println!("cargo::rustc-cdylib-link-arg=-lntoskrnl");
    }
}
