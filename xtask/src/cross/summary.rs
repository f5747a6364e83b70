//! Report on a finished image, and its check.

use std::path::Path;

use anyhow::Result;

use crate::image::{self, Expected, Finding};

/// Requirements on an image of a C compiler: those of a driver, of any size.
pub(super) const C_DRIVER: Expected = image::DRIVER;

/// Prints an image's path, size, imports and sections. With expectations it is checked: is it fit to be
/// loaded?
pub(super) fn print(path: &Path, expected: Option<&Expected>, json: bool) -> Result<bool> {
    let image = image::inspect(path)?;
    let findings = expected.map(|expected| image.check(expected)).unwrap_or_default();
    let fit = !findings.iter().any(Finding::is_error);
    if json {
        let mut object = image.json();
        object["path"] = path.to_string_lossy().into();
        object["fit"] = fit.into();
        object["findings"] = findings.iter().map(ToString::to_string).collect();
        println!("{object}");
    } else {
        println!("{}\n{image}", path.display());
        for finding in findings {
            println!("  {finding}");
        }
    }
    Ok(fit)
}
