#!/usr/bin/env bash
# A real Medusa server with a seeded shop: brought up, compared with a server without a cache, measured.
#
#   medusa.sh types                           what a shop writes in TypeScript (types/), compiled against the package's types and Medusa's
#   medusa.sh check [options of check.mjs]    every kind of change, races, outages, two processes; 0 stale is expected
#                                             NEAR=yes: the package keeps values inside the Node processes as well
#   medusa.sh watch [options of check.mjs]    changes by SQL, noticed by mcache-watch
#   medusa.sh split [options of check.mjs]    two server processes and a worker, events over Redis
#   medusa.sh bench [local|hop] [order|browse|hot]   the table of docs/results/medusa.md, one mix and distance at a time; ROUNDS, FLOWS
#                                             and WARMUP say how much; rounds that are there are kept
#   medusa.sh profile                         which statements each request sends to the database, without a cache and with the package
#   medusa.sh calls                           what each request asks the cache for: messages, and shapes with what became of them
#   medusa.sh near                            what a near cache inside Node could save of a hot page, at most
#   medusa.sh up KIND NAME                    one server: off, official, provider, module
#   medusa.sh down                            stops everything it started
#
# Everything is kept in $MEDUSA_DIR (default: a folder under the temporary one), so that a run that was cut short goes on;
# ports are free ones, chosen once. Needs PostgreSQL, redis-server, Node 20 (from the npm registry where Node is older).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=${MEDUSA_DIR:-${TMPDIR:-/tmp}/mcache-medusa}
so=${MCACHE_SO:-$root/target/release/libmcache.so}
watch=${MCACHE_WATCH:-$root/target/release/mcache-watch}
[ -z "${NEAR:-}" ] || OPTIONS='{"near":{"bytes":67108864}}'
mkdir -p "$dir"
chmod 755 "$dir"
export MEDUSA_DISABLE_TELEMETRY=true DO_NOT_TRACK=1 SEED_OUT=$dir/seed.json
say() { printf 'medusa: %s\n' "$*"; }
give_up() { say "$*" >&2; exit 1; }
[ -e "$so" ] || give_up "$so is missing: run make build"

# A port for each purpose, the same one in the next run.
port() {
    local file=$dir/ports/$1
    mkdir -p "$dir/ports"
    [ -s "$file" ] || node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })' > "$file"
    cat "$file"
}

need_node() {
    local major
    major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
    [ "$major" -ge 20 ] && return
    say "Node $major is older than Medusa wants; installing Node 20 into $dir"
    mkdir -p "$dir/node" && npm install --prefix "$dir/node" --no-audit --no-fund --loglevel=error "node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')@20"
    export PATH="$(dirname "$(find "$dir/node" -name node -type f | head -1)"):$PATH"
}

as_postgres() { if [ "$(id -u)" -eq 0 ]; then su postgres -c "$1"; else bash -c "$1"; fi; }
sql() { psql -qAt -h 127.0.0.1 -p "$(port postgres)" -U postgres "$@"; }

start_postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
    pg_isready -q -h 127.0.0.1 -p "$(port postgres)" && return
    mkdir -p "$dir/postgres"
    [ "$(id -u)" -ne 0 ] || chown postgres "$dir/postgres"
    [ -d "$dir/postgres/data" ] || as_postgres "$bin/initdb -D $dir/postgres/data -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null"
    as_postgres "$bin/pg_ctl -D $dir/postgres/data -w -l $dir/postgres/log -o '-p $(port postgres) -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/postgres -c shared_buffers=256MB -c max_connections=300' start >/dev/null"
}

start_redis() { # NAME [module]
    local at=$dir/redis-$1
    mkdir -p "$at"
    redis-cli -p "$(port "redis-$1")" ping >/dev/null 2>&1 && return
    local load=()
    [ "${2:-}" != module ] || load=(--loadmodule "$so" ${NEAR:+--mcache.feed yes})
    redis-server --port "$(port "redis-$1")" --bind 127.0.0.1 --save "" --appendonly no --daemonize yes --dir "$at" \
        --pidfile "$at/pid" --logfile "$at/log" "${load[@]}" >/dev/null
}

# The package as npm would install it: its own files, in the app's node_modules.
install_package() {
    local at=$dir/app/node_modules/medusa-mcache
    rm -rf "$at" && mkdir -p "$at"
    (cd "$root/client/medusa" && cp -r package.json LICENSE README.md index.js index.d.ts provider.js provider.d.ts src "$at/")
}

setup() {
    need_node
    start_postgres
    mkdir -p "$dir/app"
    cp -r "$here/app/." "$dir/app/"
    if [ ! -e "$dir/app/.installed" ]; then
        say "npm install (a few minutes, once)"
        (cd "$dir/app" && npm ci --no-audit --no-fund --legacy-peer-deps --loglevel=error) && touch "$dir/app/.installed"
    fi
    install_package
    if [ ! -e "$dir/.seeded" ]; then
        say "migrating and seeding (a few minutes, once)"
        sql -c "drop database if exists medusa" -c "create database medusa"
        (
            cd "$dir/app"
            export DATABASE_URL
            DATABASE_URL=postgres://postgres@127.0.0.1:$(port postgres)/medusa
            npx medusa db:migrate --skip-scripts
            npx medusa exec ./src/scripts/seed.ts
            npx medusa user -e admin@example.com -p secret-for-tests
        ) > "$dir/seed.log" 2>&1 || give_up "seeding failed, see $dir/seed.log"
        sql medusa -c "vacuum analyze"
        touch "$dir/.seeded"
    fi
}

database() { # NAME: a copy of the seeded shop
    [ "$(sql -c "select 1 from pg_database where datname = 'medusa_$1'")" = 1 ] || sql -c "create database medusa_$1 template medusa"
}

up() { # KIND NAME DATABASE REDIS [PGPORT]
    local kind=$1 name=$2 database=$3 redis=$4 pg=${5:-$(port postgres)} at
    at=$(port "$name")
    if curl -sf -o /dev/null "http://127.0.0.1:$at/health"; then return; fi
    (
        export DATABASE_URL=postgres://postgres@127.0.0.1:$pg/medusa_$database PORT=$at NODE_ENV=production LOG_LEVEL=${LOG_LEVEL:-warn} CACHING=on
        case $kind in
            off) CACHING=off ;;
            official) start_redis "$redis" ;;
            provider) start_redis "$redis" module; export CACHE_PROVIDER=medusa-mcache/provider CACHE_PROVIDER_ID=mcache ;;
            module) start_redis "$redis" module; export CACHE_MODULE=medusa-mcache CACHE_PROVIDER_OPTIONS=${OPTIONS:-'{}'} ;;
            *) give_up "no kind $kind: off, official, provider, module" ;;
        esac
        if [ "${SIDE:-}" = redis ]; then
            start_redis side
            export SIDE_REDIS_URL=redis://127.0.0.1:$(port redis-side)/0
        fi
        [ "$kind" = off ] || export CACHE_REDIS_URL=redis://127.0.0.1:$(port "redis-$redis")/0
        cd "$dir/app"
        setsid node node_modules/@medusajs/cli/cli.js start -H 127.0.0.1 -p "$at" > "$dir/$name.log" 2>&1 < /dev/null &
        echo $! > "$dir/$name.pid"
    )
    for _ in $(seq 1 300); do
        curl -sf -o /dev/null "http://127.0.0.1:$at/health" && { say "$name ($kind) on port $at"; return; }
        kill -0 "$(cat "$dir/$name.pid")" 2>/dev/null || break
        sleep 1
    done
    tail -20 "$dir/$name.log"
    give_up "$name did not come up, see $dir/$name.log"
}

# mcache-watch between the database of that name and its cache, ready.
start_watch() { # NAME
    [ -s "$dir/watch.pid" ] && kill -0 "$(cat "$dir/watch.pid")" 2>/dev/null && return
    DATABASE_URL=postgres://postgres@127.0.0.1:$(port postgres)/medusa_$1 CACHE_REDIS_URL=redis://127.0.0.1:$(port "redis-$1")/0 \
        setsid "$watch" "$root/packaging/watch/medusa.toml" > "$dir/watch.log" 2>&1 < /dev/null &
    echo $! > "$dir/watch.pid"
    for _ in $(seq 1 60); do
        grep -qs "watching" "$dir/watch.log" && return
        kill -0 "$(cat "$dir/watch.pid")" 2>/dev/null || break
        sleep 1
    done
    cat "$dir/watch.log"
    give_up "mcache-watch did not start"
}

stop() { # NAME
    [ -s "$dir/$1.pid" ] || return 0
    kill "$(cat "$dir/$1.pid")" 2>/dev/null || true
    for _ in $(seq 1 30); do kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null || break; sleep 1; done
    rm -f "$dir/$1.pid"
}

down() {
    for pid in "$dir"/*.pid; do [ -e "$pid" ] && stop "$(basename "$pid" .pid)"; done
    # By its port: one that a check has restarted has another process.
    for at in "$dir"/ports/redis-*; do [ ! -e "$at" ] || redis-cli -p "$(cat "$at")" shutdown nosave >/dev/null 2>&1 || true; done
    [ ! -s "$dir/postgres/data/postmaster.pid" ] || kill -INT "$(head -1 "$dir/postgres/data/postmaster.pid")"
    true
}

# The port, the process and the Redis of one server of a comparison, for turns.mjs.
arm() {
    local name=bench-$distance-$1
    printf '%s:%s' "$(port "$name")" "$(cat "$dir/$name.pid")"
    [ "$1" = off ] || printf ':%s' "$(port "redis-bench-$1")"
}

main() {
case ${1:-} in
types)
    setup
    cp -r "$here/types" "$dir/app/"
    # Medusa's own types have faults that are not ours to report.
    (cd "$dir/app" && node_modules/.bin/tsc --noEmit --strict --target ES2021 --module Node16 --moduleResolution Node16 --esModuleInterop \
        --types node types/shop.ts) > "$dir/types.log" || true
    ! grep -E '^(types/|node_modules/medusa-mcache/)|error TS(2307|5|6)' "$dir/types.log" || give_up "the package's types are wrong"
    say "the types are right"
    ;;
check)
    shift
    setup
    database check
    up off check-off check none
    up module check-one check check
    up module check-two check check
    MODULE_SO=$so node "$here/check.mjs" --off "$(port check-off)" --on "$(port check-one),$(port check-two)" --seed "$dir/seed.json" \
        --rng "${SEED:-1}" --redis "$(port redis-check)" --dir "$dir/redis-check" --out "$dir/check${NEAR:+-near}.jsonl" "$@"
    ;;
watch)
    shift
    [ -x "$watch" ] || give_up "$watch is missing: run cargo build --release -p mcache-postgres --features watch"
    setup
    database check
    up off check-off check none
    up module check-one check check
    up module check-two check check
    start_watch check
    node "$here/check.mjs" --off "$(port check-off)" --on "$(port check-one),$(port check-two)" --seed "$dir/seed.json" \
        --rng "${SEED:-1}" --out "$dir/watch.jsonl" --without changes,races,outages \
        --psql "postgres://postgres@127.0.0.1:$(port postgres)/medusa_check" "$@"
    stop watch
    ;;
split)
    shift
    setup
    database split
    up off split-off split none
    SIDE=redis WORKER_MODE=server up module split-one split split
    SIDE=redis WORKER_MODE=server up module split-two split split
    SIDE=redis WORKER_MODE=worker up module split-worker split split
    node "$here/check.mjs" --off "$(port split-off)" --on "$(port split-one),$(port split-two)" --seed "$dir/seed.json" \
        --rng "${SEED:-1}" --out "$dir/split.jsonl" --without races,outages --worker yes "$@"
    for name in split-off split-one split-two split-worker; do stop "$name"; done
    ;;
profile)
    shift
    setup
    for kind in off module; do database "profile_$kind"; done
    # Begins without anything cached.
    start_redis profile module
    redis-cli -p "$(port redis-profile)" flushall >/dev/null
    node "$here/profile.mjs" "$dir/profile.md" "$dir/seed.json" "$(port postgres)" "off=$(port profile-off):$(port proxy-off)" "module=$(port profile-module):$(port proxy-module)" &
    profiling=$!
    sleep 1
    up off profile-off profile_off none "$(port proxy-off)"
    # Its proxy listens once the first server has been gone through.
    for _ in $(seq 1 600); do
        kill -0 "$profiling" 2>/dev/null || break
        (exec 3<>"/dev/tcp/127.0.0.1/$(port proxy-module)") 2>/dev/null && break
        sleep 1
    done
    up module profile-module profile_module profile "$(port proxy-module)"
    wait "$profiling"
    for name in profile-off profile-module; do stop "$name"; done
    ;;
calls)
    shift
    setup
    database calls
    up module calls calls calls
    node "$here/calls.mjs" "$dir/seed.json" "$(port calls)" "$(port redis-calls)" | tee "$dir/calls.md"
    ;;
near)
    shift
    setup
    database profile_module
    NODE_OPTIONS="--require $here/near-probe.cjs" NEAR_PROBE_PORT=$(port near-probe) up module near profile_module near
    node "$here/near.mjs" "$dir/seed.json" "$(port near)" "$(port near-probe)" | tee "$dir/near.md"
    stop near
    ;;
bench)
    shift
    setup
    for distance in ${1:-local hop}; do
        pg=$(port postgres)
        if [ "$distance" = hop ]; then
            pg=$(port postgres-hop)
            pg_isready -q -h 127.0.0.1 -p "$pg" || { node "$here/pgdelay.mjs" "$pg" "$(port postgres)" "${HOP_MS:-3}" > "$dir/hop.log" 2>&1 & echo $! > "$dir/hop.pid"; sleep 1; }
        fi
        for kind in off official module; do
            database "bench_$kind"
            up $kind "bench-$distance-$kind" "bench_$kind" "bench-$kind" "$pg"
        done
        for mix in ${2:-order browse hot}; do
            admin=admin@example.com:secret-for-tests
            case $mix in
                order) load='"convert":1,"writes":0,"hot":0' ;;
                browse) load='"convert":0.05,"writes":0.25,"hot":0,"admin":"'$admin'"' ;;
                hot) load='"convert":0,"writes":0,"hot":40' ;;
                *) give_up "no mix $mix: order, browse, hot" ;;
            esac
            out=$dir/results/$distance-$mix
            say "$distance, $mix"
            for round in $(seq 1 "${ROUNDS:-3}"); do
                [ ! -e "$out/round$round" ] || continue
                node "$here/turns.mjs" "$out" "r$round" "off=$(arm off)" "official=$(arm official)" "module=$(arm module)" -- \
                    "{$load,\"seed\":\"$dir/seed.json\",\"rng\":$((round * 1000 + ${SEED:-1})),\"flows\":${FLOWS:-12},\"warmup\":${WARMUP:-6}}"
                # How busy the machine was: the report says it.
                cut -d' ' -f1-3 /proc/loadavg > "$out/round$round"
                node "$here/report.mjs" "$dir/results" "$root/docs/results/medusa.md"
            done
        done
        for kind in off official module; do stop "bench-$distance-$kind"; done
    done
    node "$here/report.mjs" "$dir/results" "$root/docs/results/medusa.md"
    ;;
up)
    setup
    database "$3"
    up "$2" "$3" "$3" "$3"
    ;;
down) down ;;
*) sed -n '2,20p' "$0" ;;
esac
}

# Read as a whole before it runs, this line included, so that an edit of this file does not disturb a run.
main "$@"; exit
