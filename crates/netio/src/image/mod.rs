//! The image: what it exports, and what it does for the loader's kernel and asks of it.

mod executive;
mod exports;
mod process;
mod unload_safe;
mod unloads;
