pub(crate) mod audit;
pub(crate) mod driver;
pub(crate) mod entry;
pub(crate) mod machine;
