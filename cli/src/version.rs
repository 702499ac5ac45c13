//! `gristmill version`.

/// What this build is made of, and until when its sandbox gets security fixes.
pub(crate) fn print() {
    let sandbox = gristmill_smt::support();
    println!("gristmill    {}", env!("CARGO_PKG_VERSION"));
    println!("transforms   {}", sandbox.contract);
    println!("wasmtime     {}, supported until {}", sandbox.wasmtime, sandbox.wasmtime_supported_until);
    println!("librdkafka   {}", gristmill::librdkafka_version());
}
