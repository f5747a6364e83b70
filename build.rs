//! Build script of `wsk`. The library itself needs no configuration; the driver sets what it needs.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
