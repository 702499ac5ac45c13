//! The sink against real folders, and the protocol against a model checker.

mod folder;
