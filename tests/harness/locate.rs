//! Where the programs are that tests start.
//!
//! Owns the search for the built module, Redis' and PostgreSQL's programs, and the words that tell how to get them.

use std::path::{Path, PathBuf};

const MODULE_FILE: &str = "libmcache.so";

/// The built module: `MCACHE_MODULE` if set, else `release/libmcache.so` in the target directory this program was built
/// into, else in the workspace's `target`.
///
/// # Panics
///
/// When there is none, naming `make build`.
pub fn module() -> PathBuf {
    if let Some(path) = std::env::var_os("MCACHE_MODULE").map(PathBuf::from) {
        assert!(
            path.is_file(),
            "MCACHE_MODULE names {}, which is not a file",
            path.display()
        );
        // Redis resolves a relative path against its own directory.
        return path.canonicalize().unwrap_or(path);
    }
    let workspace_target = workspace().join("target");
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .skip(1)
        .chain([workspace_target.as_path()])
        .map(|dir| dir.join("release").join(MODULE_FILE))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{MODULE_FILE} is not built: run `make build` (or set MCACHE_MODULE to the file). Looked in {} and above {}",
                workspace_target.display(),
                program.display()
            )
        })
}

/// The project's root directory.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// One of Redis' programs: `redis-server`, `redis-cli`, `redis-benchmark`; from `MCACHE_REDIS_BIN` if that names a
/// directory (to test other versions), else from the search path.
pub fn redis(program: &str) -> PathBuf {
    match std::env::var_os("MCACHE_REDIS_BIN") {
        Some(dir) => Path::new(&dir).join(program),
        None => PathBuf::from(program),
    }
}

/// One of PostgreSQL's programs, of the newest version installed the Debian way, else from the search path.
pub fn postgres(program: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(program))
        .filter(|path| path.is_file())
        .collect();
    versions.sort();
    // Debian puts PgBouncer where only root looks.
    let beside = Path::new("/usr/sbin").join(program);
    let beside = beside.is_file().then_some(beside);
    versions
        .pop()
        .or(beside)
        .unwrap_or_else(|| PathBuf::from(program))
}
