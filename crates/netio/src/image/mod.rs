//! The image: its exports, and its use of the loader's kernel.

mod executive;
mod exports;
mod process;
mod unload_safe;
mod unloads;
