//! Generates the types, clients and servers of both contracts, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["runtime.proto", "corten.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Stable order: what is logged or compared does not change from run to run.
        .btree_map(".")
        // Secrets get a Debug that does not print them.
        .skip_debug(["runtime.v1.AuthConfig", "corten.v1.RegistryCredentials"])
        // No default stubs: a call that the daemon does not serve does not compile.
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
