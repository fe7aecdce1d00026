//! Another language speaks the same: the Python example passes the cases for every client and shares entries with ours.

use std::process::Command;

use harness::{Server, locate};
use mcache::{Cache, Error};

use crate::support::runtime::run;

/// Runs Python in the folder of the example and returns what it printed.
fn python(arguments: &[&str]) -> String {
    let output = Command::new("python3")
        .args(arguments)
        .current_dir(locate::workspace().join("examples/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "python3 {arguments:?} failed:\n{errors}"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn it_passes_the_cases_for_every_client() {
    let server = Server::builder().tcp().start();
    let vectors = locate::workspace().join("client/vectors");
    let vectors = vectors.to_str().expect("a path in UTF-8");
    let printed = python(&["conformance.py", vectors, &server.port().to_string()]);
    assert_eq!(printed.lines().count(), 3, "{printed}");
}

#[test]
fn it_shares_entries_with_the_rust_client_both_ways() {
    let server = Server::builder().tcp().start();
    let in_python = |what: &str| {
        let address = format!("('127.0.0.1', {})", server.port());
        let program =
            format!("import mcache; c = mcache.Cache({address}, 'store:eu', 3); print({what})");
        python(&["-c", &program])
    };
    run(async {
        let builder = Cache::builder(server.tcp_url())
            .namespace("store:eu")
            .schema_version(3);
        let cache = builder.caching(true).build().await.expect("a cache");

        // Ours, compressed, is read there; tags given there are ours.
        let long = "red shirt ".repeat(1000);
        cache
            .key("product:1")
            .tags(["Product:1"])
            .set(&long)
            .await
            .expect("stored");
        assert_eq!(
            in_python("c.get('product:1') == 'red shirt ' * 1000"),
            "True"
        );
        assert_eq!(in_python("c.invalidate('Product:1', '*')"), "1");
        assert_eq!(
            cache.key("product:1").get::<String>().await.expect("read"),
            None
        );

        // Theirs is read here and cleared by our tags, the one of everything included.
        let load = "c.get_or_load('#2', lambda: {'title': 'Hat'}, tags=['Product:2'])";
        assert_eq!(in_python(load), "{'title': 'Hat'}");
        let ours = || async { Err::<serde_json::Value, _>(Error::from(mcache::ErrorKind::Codec)) };
        let found = cache
            .key("#2")
            .get_or_load(ours)
            .await
            .expect("it is there");
        assert_eq!(found["title"], "Hat");
        assert_eq!(
            cache
                .invalidate(["Product:2"])
                .await
                .expect("sent")
                .entries(),
            1
        );
        assert_eq!(in_python("c.get('#2')"), "None");
        assert_eq!(in_python("c.set('k', [1], tags=['*'])"), "True");
        assert_eq!(cache.clear_all().await.expect("sent").entries(), 1);
    });
}
