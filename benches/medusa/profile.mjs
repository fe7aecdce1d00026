// profile.mjs OUT SEED PGPORT NAME=PORT:PROXYPORT ...: which statements each request sends to the database, without a
// cache and with one.
//
// Each server reaches PostgreSQL through a proxy in this process, which reads the statements on their way. One visitor
// makes one request at a time, so each statement belongs to the request under way. Counts do not depend on how busy the
// machine is; with the database a network hop away they are what a request's time is made of.
import net from "node:net"
import { readFileSync, writeFileSync } from "node:fs"
import { Server, randomOf } from "./api.mjs"
import { visit } from "./visits.mjs"

const [out, seedFile, pgPort, ...arms] = process.argv.slice(2)
const seed = JSON.parse(readFileSync(seedFile, "utf8"))
const WARMUP = Number(process.env.WARMUP ?? 4)
const VISITS = Number(process.env.VISITS ?? 4)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Tables whose rows are catalogue or configuration: those of the file for mcache-watch. */
const CATALOGUE = new Set([...readFileSync(new URL("../../packaging/watch/medusa.toml", import.meta.url), "utf8").matchAll(/^table = "(\w+)"/gm)].map(([, name]) => name))

function kindOf(sql) {
  if (/^\s*(begin|commit|rollback|savepoint|release|set|start)\b/i.test(sql)) return "transaction"
  if (/^\s*(insert|update|delete)\b/i.test(sql)) return "write"
  const tables = tablesOf(sql)
  if (tables.length === 0) return "other"
  return tables.every((table) => CATALOGUE.has(table)) ? "catalogue" : "shopper"
}

function tablesOf(sql) {
  return [...new Set([...sql.matchAll(/\b(?:from|join|into|update)\s+(?:only\s+)?(?:"?public"?\.)?"?([a-z_]+)"?/gi)].map(([, name]) => name.toLowerCase()))].filter((name) => name !== "select" && name !== "lateral")
}

/** Hands statements to `tell` on their way to PostgreSQL. */
function proxy(port, tell) {
  net.createServer((client) => {
    const server = net.connect(Number(pgPort), "127.0.0.1")
    const statements = new Map()
    let rest = Buffer.alloc(0)
    let isStarted = false
    client.setNoDelay(true)
    server.setNoDelay(true)
    client.on("data", (data) => {
      server.write(data)
      rest = Buffer.concat([rest, data])
      for (;;) {
        const head = isStarted ? 1 : 0
        if (rest.length < head + 4) return
        const length = head + rest.readInt32BE(head)
        if (rest.length < length) return
        const message = rest.subarray(0, length)
        rest = rest.subarray(length)
        if (!isStarted) {
          // A request for TLS is followed by another start.
          isStarted = message.readInt32BE(4) !== 80877103
          continue
        }
        const text = (from) => {
          const end = message.indexOf(0, from)
          return [message.toString("utf8", from, end), end + 1]
        }
        const type = String.fromCharCode(message[0])
        if (type === "Q") tell(text(5)[0])
        else if (type === "P") {
          const [name, next] = text(5)
          statements.set(name, text(next)[0])
        } else if (type === "B") {
          const [, next] = text(5)
          tell(statements.get(text(next)[0]) ?? "?")
        }
      }
    })
    server.on("data", (data) => client.write(data))
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on("close", () => other.destroy())
      one.on("error", () => {})
    }
  }).listen(port, "127.0.0.1")
}

/** By arm and request: how often it was made, statements by kind, and catalogue statements by their tables. */
const counted = {}

async function profile(name, port, proxyPort) {
  let under
  proxy(Number(proxyPort), (sql) => under?.push(sql))
  process.stdout.write(`ready ${name}\n`)
  const server = new Server(name, Number(port), seed.publishable_key)
  const ends = Date.now() + 300_000
  while ((await server.request("GET", "/health").catch(() => ({}))).status !== 200) {
    if (Date.now() > ends) throw new Error(`${name} did not come up`)
    await pause(500)
  }
  const rows = (counted[name] = {})
  let isMeasuring = false
  const call = async (request, method, path, body) => {
    under = []
    const began = performance.now()
    const { status, json } = await server.request(method, path, body)
    if (status >= 300) throw new Error(`${request}: ${status} ${JSON.stringify(json).slice(0, 300)}`)
    const ms = performance.now() - began
    // What is stored after the answer reads nothing; a lock that is given back does.
    const own = under
    await pause(20)
    if (isMeasuring) {
      const row = (rows[request] ??= { n: 0, ms: 0, kinds: {}, tables: {} })
      row.n += 1
      row.ms += ms
      for (const sql of own) {
        const kind = kindOf(sql)
        row.kinds[kind] = (row.kinds[kind] ?? 0) + 1
        if (kind === "catalogue" || kind === "shopper") {
          const key = `${kind}: ${tablesOf(sql).join(" ")}`
          row.tables[key] = (row.tables[key] ?? 0) + 1
        }
      }
    }
    return json
  }
  const random = randomOf(7)
  for (let n = 0; n < WARMUP + VISITS; n += 1) {
    isMeasuring = n >= WARMUP
    await visit({ call, seed, random, n, convert: 1 })
  }
}

for (const arm of arms) {
  const [name, ports] = arm.split("=")
  await profile(name, ...ports.split(":"))
}

const [off, on] = Object.keys(counted)
const per = (row, kind) => ((row?.kinds[kind] ?? 0) / (row?.n ?? 1)).toFixed(1)
const all = (row) => Object.values(row.kinds).reduce((sum, one) => sum + one, 0) / row.n
const lines = [
  `Statements a request sends to the database, ${VISITS} visits that order, after ${WARMUP} others. *Catalogue*: reads of products, prices, regions,`,
  "taxes, stock, shipping and promotions, which are all that can be cached; *shopper*: reads of carts, orders, payments, customers.",
  "",
  "| request | no cache | of these catalogue | shopper | writes | transactions | with the package | catalogue left | cacheable at most | saved |",
  "|---|---|---|---|---|---|---|---|---|---|",
]
for (const [request, row] of Object.entries(counted[off])) {
  const other = counted[on][request]
  const share = ((row.kinds.catalogue ?? 0) / row.n / all(row)) * 100
  lines.push(`| ${request} | ${all(row).toFixed(1)} | ${per(row, "catalogue")} | ${per(row, "shopper")} | ${per(row, "write")} | ${per(row, "transaction")} | ${all(other).toFixed(1)} | ${per(other, "catalogue")} | ${share.toFixed(0)} % | ${(100 - (all(other) / all(row)) * 100).toFixed(0)} % |`)
}
lines.push("", "What is still read of the catalogue, statements a request:", "")
for (const [request, row] of Object.entries(counted[on])) {
  const left = Object.entries(row.tables).filter(([name]) => name.startsWith("catalogue")).sort(([, one], [, other]) => other - one)
  if (left.length > 0) lines.push(`- ${request}: ${left.map(([name, count]) => `${name.slice(11)} ${(count / row.n).toFixed(1)}`).join("; ")}`)
}
writeFileSync(out, `${lines.join("\n")}\n`)
writeFileSync(`${out}.json`, JSON.stringify(counted, null, 1))
console.log(lines.join("\n"))
process.exit(0)
