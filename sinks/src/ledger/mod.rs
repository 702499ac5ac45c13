pub(crate) mod audit;
pub(crate) mod driver;
pub(crate) mod entry;
pub(crate) mod machine;
pub(crate) mod operation;
pub(crate) mod repair;
pub(crate) mod tip;
