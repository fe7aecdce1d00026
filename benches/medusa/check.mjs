// Every kind of change followed by the store's reads, against a server without a cache on the same database.
//
//   node check.mjs --off 7361 --on 7362,7363 --seed seed.json --rng 1 --out check.jsonl
//     [--only part] [--rounds 24] [--redis 7352]
//                  [--without changes,races,outages] [--psql CONNINFO] [--worker yes]
//                  [--related yes]    only the reads that the kind of change may concern; [--show yes] what differs
//
// Before a change each read is asked for twice of the cached servers, so that it is in the cache; a comparison counts
// only if the second of these was a hit. A difference right after the change is `late` if it is gone within 400 ms,
// else `stale`. What is done is written to the file, one line a kind, and a later run with the same seed goes on behind
// it.
import { execFileSync, spawn } from "node:child_process"
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { Server, randomOf } from "./api.mjs"
import { READS, related, settled } from "./reads.mjs"
import { CHANGES } from "./changes.mjs"
import { SQL } from "./sql.mjs"
import { makeWorld, newCart, order } from "./world.mjs"

const args = Object.fromEntries(process.argv.slice(2).join(" ").split("--").filter(Boolean).map((part) => {
  const [name, ...value] = part.trim().split(/\s+/)
  return [name, value.join(" ") || "yes"]
}))
const SETTLE_MS = Number(args.settle ?? 400)
const rng = Number(args.rng ?? Date.now() % 100_000)
const out = args.out ?? "check.jsonl"
const without = new Set((args.without ?? "").split(","))
const random = randomOf(rng)
const seed = JSON.parse(readFileSync(args.seed, "utf8"))
const off = new Server("off", Number(args.off), seed.publishable_key)
const on = args.on.split(",").map((port, i) => new Server(`on${i}`, Number(port), seed.publishable_key))
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const done = new Set(existsSync(out) ? readFileSync(out, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line)).filter((line) => line.rng === rng).map(({ kind }) => kind) : [])
const totals = { kinds: 0, comparisons: 0, unhit: 0, late: 0, stale: 0, failed: 0 }

console.log(`seed ${rng}: node check.mjs ... --rng ${rng}`)
for (const server of [off, ...on]) await server.login("admin@example.com", "secret-for-tests")
const run = Math.floor(Date.now() / 1000) % 10_000_000
const w = await makeWorld(on[0], seed, random, run)
w.run = run

function record(kind, result) {
  appendFileSync(out, `${JSON.stringify({ rng, kind, ...result })}\n`)
  totals.kinds += 1
  for (const name of ["comparisons", "unhit", "late", "stale"]) totals[name] += result[name]?.length ?? result[name] ?? 0
  if (result.failed) totals.failed += 1
  const stale = result.stale?.length ? `  STALE: ${result.stale.join(", ")}` : ""
  console.log(`${kind}: ${result.comparisons ?? 0} compared, ${result.late?.length ?? 0} late${stale}${result.failed ? `  FAILED ${result.failed}` : ""}`)
}

/** Puts each read into the cache; returns those that the cache then answered. */
async function warm(reads) {
  const hit = new Set()
  for (const [name, of] of reads) {
    const path = of(w)
    const first = random.pick(on)
    await first.request("GET", path)
    // The second may be the first of a new shape, which only learns.
    for (let attempt = 0; attempt < 3 && !hit.has(name); attempt += 1) {
      const server = random.pick(on)
      const before = (await server.stats()).hits
      await server.request("GET", path)
      // The publishable key alone is one hit of every request.
      if ((await server.stats()).hits - before >= 2) hit.add(name)
    }
  }
  return hit
}

/** Compares reads; tells which differ at once and which still differ after a while. */
async function compare(reads, hit) {
  const late = []
  const stale = []
  let comparisons = 0
  for (const [name, of] of reads) {
    const path = of(w)
    const server = random.pick(on)
    const [fresh, cached] = [settled(await off.request("GET", path)), settled(await server.request("GET", path))]
    if (hit.has(name)) comparisons += 1
    if (fresh === cached) continue
    late.push(name)
    const ends = Date.now() + SETTLE_MS
    let differs = true
    let last
    do {
      await pause(50)
      last = [settled(await off.request("GET", path)), settled(await server.request("GET", path))]
      differs = last[0] !== last[1]
    } while (differs && Date.now() < ends)
    if (differs) {
      stale.push(name)
      if (args.show) console.log(`  ${name} on ${server.name}\n    fresh  ${around(...last)}\n    cached ${around(last[1], last[0])}`)
    }
  }
  return { comparisons, unhit: reads.length - hit.size, late, stale }
}

function around(one, other) {
  let at = 0
  while (at < one.length && one[at] === other[at]) at += 1
  return one.slice(Math.max(0, at - 120), at + 120)
}

async function changes() {
  for (const [kind, what] of CHANGES) {
    if (done.has(kind) || (args.only && !kind.includes(args.only))) {
      // Later kinds build on what earlier ones made, so these are done, without reading.
      if (typeof what === "function") await what(tools()).catch(() => {})
      continue
    }
    const started = Date.now()
    try {
      if (what.cart) record(kind, await promotionAfterItsCode(what.cart))
      else if (what.moment) {
        // Once before the moment in any case, and then across it: a busy machine is not quicker than the clock.
        const at = await what.moment(tools())
        const hit = await warm(PRICED)
        for (const [, of] of PRICED) if (Date.now() < at) await random.pick(on).request("GET", of(w))
        await pause(Math.max(0, at - Date.now()) + 200)
        record(kind, { ...(await compare(PRICED, hit)), ms: Date.now() - started })
      } else {
        const reads = args.related ? related(kind) : READS
        const hit = await warm(reads)
        await what(tools())
        record(kind, { ...(await compare(reads, hit)), ms: Date.now() - started })
      }
    } catch (error) {
      record(kind, { failed: error.message.slice(0, 300) })
    }
  }
}

const PRICED = READS.filter(([name]) => ["list", "product", "other product", "by title", "variants"].includes(name))
let changeNo = 0
function tools() {
  changeNo += 1
  const admin = random.pick(on)
  return { admin, w, n: run * 1000 + changeNo, order: (variant) => order(admin, seed, w.region, variant) }
}

/** A code is tried, then made, then tried again: it has to count. */
async function promotionAfterItsCode(make) {
  const one = random.pick(on)
  const other = random.pick(on)
  const context = tools()
  const cart = await newCart(one, seed, w.region, w.variant)
  const code = `LATE${context.n}`
  for (let i = 0; i < 2; i += 1) await one.request("POST", `/store/carts/${cart}/promotions`, { promo_codes: [code] })
  await make(context)
  await pause(SETTLE_MS)
  const { json } = await other.request("POST", `/store/carts/${cart}/promotions`, { promo_codes: [code] })
  const found = json.cart?.promotions?.some((promotion) => promotion.code === code)
  return { comparisons: 1, late: [], stale: found ? [] : [`the code is ${json.message ?? "not applied"}`] }
}

/** A product is written while its pages and lists are read. */
async function races() {
  const rounds = Number(args.rounds ?? 24)
  const reads = READS.filter(([name]) => ["list", "product", "newest", "by title"].includes(name))
  for (let round = 0; round < rounds; round += 1) {
    const kind = `race ${round}`
    if (done.has(kind)) continue
    // Out of the cache, so that the reads below fill it.
    await random.pick(on).post(`/admin/products/${w.product}`, { subtitle: `race ${round} before` })
    const reading = []
    const read = () => reads.forEach(([, of]) => reading.push(random.pick(on).request("GET", of(w))))
    read()
    await pause(random.below(60))
    const writing = random.pick(on).post(`/admin/products/${w.product}`, { subtitle: `race ${round} ${run}` })
    read()
    await writing
    read()
    await Promise.all(reading)
    await pause(SETTLE_MS)
    record(kind, await compare(reads, new Set(reads.map(([name]) => name))))
  }
}

const redis = (...command) => execFileSync("redis-cli", ["-p", args.redis, ...command], { encoding: "utf8" })
const redisInfo = (name) => new RegExp(`${name}:(\\S+)`).exec(redis("info", "server"))?.[1]

/** Redis is stopped, is slow, or is killed and restarted while something changes. */
async function outages() {
  const reads = READS.filter(([name]) => ["list", "product", "regions", "categories", "by title"].includes(name))
  const slowest = async () => {
    let most = 0
    for (const [, of] of reads) {
      const began = performance.now()
      await random.pick(on).request("GET", of(w))
      most = Math.max(most, performance.now() - began)
    }
    return Math.round(most)
  }
  const cases = {
    "outage: stopped": async () => {
      const pid = Number(redisInfo("process_id"))
      process.kill(pid, "SIGSTOP")
      try {
        await change()
        return await slowest()
      } finally {
        process.kill(pid, "SIGCONT")
      }
    },
    "outage: slow": async () => {
      const sleeping = spawn("redis-cli", ["-p", args.redis, "debug", "sleep", "3"], { stdio: "ignore" })
      await change()
      const most = await slowest()
      await new Promise((resolve) => (sleeping.exitCode === null ? sleeping.once("exit", resolve) : resolve()))
      return most
    },
    "outage: killed and restarted": async () => {
      process.kill(Number(redisInfo("process_id")), "SIGKILL")
      await change()
      const most = await slowest()
      await startRedis()
      return most
    },
    "outage: restarted from its file": async () => {
      redis("save")
      process.kill(Number(redisInfo("process_id")), "SIGKILL")
      await change()
      const most = await slowest()
      // What it loads is served: only clears that are sent again can make it right.
      await startRedis("--mcache.on-restart", "keep")
      return most
    },
  }
  let round = 0
  const change = async () => {
    round += 1
    await on[0].post(`/admin/products/${w.product}`, { subtitle: `outage ${round} ${run}` })
    await on[0].post(`/admin/product-categories/${w.category}`, { name: `Outage ${round} ${run}` })
    await on[0].post(`/admin/regions/${w.region}`, { name: `Outage ${round} ${run}` })
  }
  for (const [kind, happen] of Object.entries(cases)) {
    if (done.has(kind)) continue
    const hit = await warm(reads)
    const slowestMs = await happen()
    // Until the processes have delivered what they owe.
    const ends = Date.now() + 30_000
    while (Date.now() < ends) {
      const all = await Promise.all(on.map((server) => server.stats()))
      if (all.every((stats) => stats.usable !== false && !stats.owed)) break
      await pause(50)
    }
    record(kind, { ...(await compare(reads, hit)), slowestMs })
  }
}

async function startRedis(...more) {
  const load = ["--loadmodule", process.env.MODULE_SO, ...more]
  spawn("redis-server", ["--port", args.redis, "--bind", "127.0.0.1", "--save", "", "--dir", args.dir, ...load], { stdio: "ignore", detached: true }).unref()
  const ends = Date.now() + 30_000
  while (Date.now() < ends) {
    try {
      if (redis("ping").startsWith("PONG")) return
    } catch {
      // Not yet.
    }
    await pause(50)
  }
  throw new Error(`no Redis on ${args.redis} after the restart`)
}

/** Changes by SQL, which only mcache-watch can notice. */
async function bySql() {
  const psql = (statement) => execFileSync("psql", ["-qAt", "-v", "ON_ERROR_STOP=1", "-d", args.psql, "-c", statement], { encoding: "utf8" }).trim()
  for (const [kind, statement] of SQL) {
    if (done.has(kind) || (args.only && !kind.includes(args.only))) continue
    try {
      const started = Date.now()
      const hit = await warm(READS)
      psql(statement(w, tools().n))
      // It is told apart from "noticed too late" by asking whether everything committed has been acknowledged.
      const ends = Date.now() + 10_000
      while (psql("SELECT count(*) FROM mcache.outbox") !== "0" && Date.now() < ends) await pause(5)
      record(kind, { ...(await compare(READS, hit)), ms: Date.now() - started })
    } catch (error) {
      record(kind, { failed: error.message.slice(0, 300) })
    }
  }
}

/** A subscriber writes; with a worker process it is not the one that was asked, nor one that answers the store. */
async function byWorker() {
  const reads = READS.filter(([name]) => ["list", "product", "newest", "by title", "variants"].includes(name))
  for (let round = 0; round < 6; round += 1) {
    const kind = `worker: a subscriber writes ${round}`
    if (done.has(kind)) continue
    try {
      const hit = await warm(reads)
      const subtitle = `by a subscriber ${run}-${round}`
      await random.pick(on).ok("POST", "/mcache", { product: w.product, subtitle })
      const ends = Date.now() + 30_000
      const isDone = async () => (await off.get(`/store/products/${w.product}?fields=subtitle`)).product.subtitle === subtitle
      while (!(await isDone())) {
        if (Date.now() > ends) throw new Error("the subscriber did not run")
        await pause(20)
      }
      await pause(SETTLE_MS)
      record(kind, await compare(reads, hit))
    } catch (error) {
      record(kind, { failed: error.message.slice(0, 300) })
    }
  }
}

if (!without.has("changes")) await changes()
if (args.psql) await bySql()
if (args.worker) await byWorker()
if (!without.has("races")) await races()
if (!without.has("outages") && args.redis) await outages()
console.log(JSON.stringify(totals))
process.exit(totals.stale || totals.failed ? 1 : 0)
