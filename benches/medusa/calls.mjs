// calls.mjs SEED PORT REDISPORT: what each request of a visit that orders asks the cache for: messages to Redis by
// command, and of each shape of query or call how often it ran, was answered, was stored. One visitor makes one request
// at a time, so each belongs to the request under way. Counts do not depend on how busy the machine is.
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { Server, randomOf } from "./api.mjs"
import { visit } from "./visits.mjs"

const [seedFile, port, redis] = process.argv.slice(2)
const seed = JSON.parse(readFileSync(seedFile, "utf8"))
const server = new Server("module", Number(port), seed.publishable_key)
const WARMUP = Number(process.env.WARMUP ?? 4)
const VISITS = Number(process.env.VISITS ?? 4)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const COUNTS = ["runs", "hits", "fills", "refused"]

function messages() {
  const info = execFileSync("redis-cli", ["-p", redis, "info", "commandstats"], { encoding: "utf8" })
  return new Map([...info.matchAll(/^cmdstat_(mcache\.\w+):calls=(\d+)/gim)].map(([, name, calls]) => [name.toLowerCase(), Number(calls)]))
}

async function state() {
  const { json } = await server.request("GET", "/mcache")
  return { shapes: new Map(json.explain.map((shape) => [shape.query, shape])), messages: messages() }
}

const rows = new Map()
let isMeasuring = false
let before = await state()
async function call(request, method, path, body) {
  const { status, json } = await server.request(method, path, body)
  if (status >= 300) throw new Error(`${request}: ${status} ${JSON.stringify(json).slice(0, 300)}`)
  if (!isMeasuring) return json
  // What is stored is stored after the answer.
  await pause(150)
  const after = await state()
  const row = rows.get(request) ?? { n: 0, messages: {}, shapes: new Map() }
  rows.set(request, row)
  row.n += 1
  for (const [name, calls] of after.messages) {
    const more = calls - (before.messages.get(name) ?? 0)
    if (more > 0) row.messages[name] = (row.messages[name] ?? 0) + more
  }
  for (const [name, shape] of after.shapes) {
    const was = before.shapes.get(name)
    const more = COUNTS.map((count) => shape[count] - (was?.[count] ?? 0))
    if (more[0] === 0 && more[2] === 0) continue
    const sum = row.shapes.get(name) ?? { counts: [0, 0, 0, 0], cached: "", why: "" }
    sum.counts = sum.counts.map((count, i) => count + more[i])
    Object.assign(sum, { cached: shape.cached, why: shape.why })
    row.shapes.set(name, sum)
  }
  before = after
  return json
}

const random = randomOf(Number(process.env.SEED ?? 7))
for (let n = 0; n < WARMUP + VISITS; n += 1) {
  isMeasuring = n >= WARMUP
  if (n === WARMUP) before = await state()
  await visit({ call, seed, random, n, convert: 1 })
}
for (const [request, { n, messages, shapes }] of rows) {
  const each = (count) => (count / n).toFixed(1)
  const sent = Object.entries(messages).map(([name, count]) => `${name.slice(7)} ${each(count)}`)
  console.log(`\n## ${request} (${n}): ${sent.join(", ")}\n`)
  for (const [name, { counts, cached, why }] of [...shapes].sort(([, one], [, other]) => other.counts[0] - one.counts[0])) {
    const [runs, hits, fills, refused] = counts.map(each)
    console.log(`- ${runs} run, ${hits} hit, ${fills} stored, ${refused} refused: ${name.slice(0, 260)} (${cached === true ? "cached" : cached === false ? why : cached})`)
  }
}
