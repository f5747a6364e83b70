//! Build script of `wsk`. The library itself needs no configuration; what a driver needs is set by the driver.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
