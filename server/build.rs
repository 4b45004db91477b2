//! Makes sure that `web/dist` exists: the pages in it are built into the binary, and a build without them must work too.

fn main() {
    let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/dist");
    if let Err(e) = std::fs::create_dir_all(&dist) {
        println!("cargo::error=cannot create {}: {e}", dist.display());
    }
    println!("cargo::rerun-if-changed=../web/dist");
}
