//! Has the image linked as a driver.
fn main() -> Result<(), wdk_build::ConfigError> {
    // The loader checks the checksum of every driver; without `/RELEASE` it is zero.
    println!("cargo::rustc-cdylib-link-arg=/RELEASE");
    // No time in the headers: the same build makes the same bytes.
    println!("cargo::rustc-cdylib-link-arg=/Brepro");
    wdk_build::configure_wdk_binary_build()
}
