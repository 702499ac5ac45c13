pub(crate) mod audit;
pub(crate) mod driver;
pub(crate) mod entry;
mod foreign;
pub(crate) mod machine;
mod places;
pub(crate) mod reconcile;
