//! Users who may not do all that a cache does.

use std::time::Duration;

use harness::Server;
use mcache::{Cache, Error, ErrorKind, Source};

use super::{observed, options};

#[test]
fn a_user_who_may_not_release_keeps_leases_to_their_end_and_is_told_so() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    redis.ok("ACL SETUSER shop on >secret ~* +@all -mcache.release");
    let url = format!("redis://shop:secret@127.0.0.1:{}", server.port());
    observed(&url, async |observed| {
        let brief = Cache::builder(&url)
            .redis(options())
            .loader_timeout(Duration::from_millis(50))
            .caching(true);
        let brief = brief.build().await.expect("a cache");
        for number in 0..3 {
            let fail = || async { Err::<u32, _>(Error::from(ErrorKind::Unavailable)) };
            let key = format!("key:{number}");
            let failed = brief.key(&key).get_or_load(fail).await;
            failed.expect_err("the source fails");
            // Another process is not kept from the key for ever.
            assert_eq!(observed.read(&key, 7).await, (7, Source::Loaded));
            observed
                .until("it is kept", async || {
                    observed.read(&key, 8).await == (7, Source::Hit)
                })
                .await;
        }
        observed
            .until("all are counted", async || observed.errors("release") == 3)
            .await;
        observed.said_once(&["MCACHE.RELEASE", "NOPERM"]);
    });
}
