//! Categories of the ACL, where servers have such for the commands of modules: Redis and Valkey 7.2; one of the
//! module's own from Redis 7.4 and Valkey 8 on.

use harness::{Server, Session, host};
use mcache_core::host::Maker;
use redis::Value;

/// What COMMAND INFO says; ACL CAT leaves the commands of modules out in Valkey 8.0.
fn categories(redis: &mut Session, command: &str) -> Vec<String> {
    const CATEGORIES: usize = 6;
    let reply = redis.run(&format!("COMMAND INFO {command}"));
    let Value::Array(commands) = reply else {
        panic!("{reply:?}")
    };
    let Some(Value::Array(parts)) = commands.first() else {
        panic!("{commands:?}")
    };
    redis::from_redis_value(parts[CATEGORIES].clone()).expect("a list of names")
}

#[test]
fn commands_are_in_the_categories_that_they_belong_to() {
    let program = host::program();
    if !program.is(Maker::Redis, 7, 2) && !program.is(Maker::Valkey, 7, 2) {
        return host::skip("it has no ACL categories for the commands of modules");
    }
    let server = Server::start();
    let mut redis = server.session();
    for (category, inside, outside) in [
        ("read", "mcache.get", "mcache.set"),
        ("write", "mcache.set", "mcache.get"),
        ("fast", "mcache.invalidate", "mcache.tags"),
        ("slow", "mcache.set", "mcache.mget"),
        ("blocking", "mcache.fetch", "mcache.get"),
        ("dangerous", "mcache.debug", "mcache.invalidate"),
        ("dangerous", "mcache.replset", "mcache.help"),
    ] {
        let category = format!("@{category}");
        assert!(
            categories(&mut redis, inside).contains(&category),
            "{inside} in {category}"
        );
        assert!(
            !categories(&mut redis, outside).contains(&category),
            "{outside} in {category}"
        );
    }
    redis.ok("ACL SETUSER reader on >secret ~* +@read -@dangerous +@connection");
    let mut reader = server.session_as("reader", "secret");
    assert_eq!(reader.text("MCACHE.GET k"), None);
    for line in ["MCACHE.SET k 0 v", "MCACHE.DEBUG SELFCHECK"] {
        assert!(reader.error(line).starts_with("NOPERM"), "{line}");
    }
}

#[test]
fn one_category_holds_what_an_application_needs_and_nothing_else() {
    let program = host::program();
    if !program.is(Maker::Redis, 7, 4) && !program.is(Maker::Valkey, 8, 0) {
        return host::skip("a module cannot add an ACL category");
    }
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("ACL SETUSER shop on >secret ~shop:* +@mcache");
    let mut shop = server.session_as("shop", "secret");
    shop.ok("MCACHE.SET shop:k 100 v TAGS shop:t");
    assert!(shop.is_live("shop:k"));
    assert_eq!(shop.int("MCACHE.INVALIDATE TAGS shop:t"), 1);
    for line in [
        "MCACHE.DEBUG SELFCHECK",
        "MCACHE.RECLAIM",
        "MCACHE.REPLINVALIDATE 1 0 t",
        "GET shop:k",
    ] {
        assert!(shop.error(line).starts_with("NOPERM"), "{line}");
    }
    // What HELP tells people of, but for what is for those who run the server.
    let help = redis.list("MCACHE.HELP");
    let told = |command: &str| {
        help.iter().any(|line| {
            let name = line.split_whitespace().next().unwrap_or_default();
            name.eq_ignore_ascii_case(command)
        })
    };
    for command in redis.list("COMMAND LIST FILTERBY MODULE mcache") {
        let ours = categories(&mut redis, &command).contains(&"@mcache".to_owned());
        let expected = told(&command) && command != "mcache.debug";
        assert_eq!(ours, expected, "{command}");
    }
}
