//! The runtime against guests that attack it, and against guests that are as they should be.

mod arrow;
mod column_attacks;
mod columns;
mod component_attacks;
mod determinism;
mod examples;
mod hostile;
mod languages;
mod loading;
mod released;
mod support;
