//! Pipeline files as people write them, wrong and right.

mod cases;
mod chain;
mod changes;
mod check;
mod formats;
mod types;
