// One server's visitor, run by turns.mjs: makes its visits one request at a time, waiting for its turn before each.
//   options, as JSON: { arm, port, pid, redis?, seed, rng, flows, warmup, convert, writes, admin?, hot, out }
import { readFileSync, writeFileSync } from "node:fs"
import { Server, randomOf } from "./api.mjs"
import { between, read } from "./meters.mjs"
import { hotReads, openOffice, visit, write } from "./visits.mjs"

const options = JSON.parse(process.argv[2])
const seed = JSON.parse(readFileSync(options.seed, "utf8"))
const server = new Server(options.arm, options.port, seed.publishable_key)
const random = randomOf(options.rng)
/** Milliseconds of each request, by its name. @type {Record<string, number[][]>} */
const samples = {}
let isMeasuring = false

let go
process.on("message", () => go?.())
const turn = () => new Promise((resolve) => {
  go = resolve
  process.send("ready")
})

async function call(name, method, path, body) {
  await turn()
  const began = performance.now()
  const { status, json } = await server.request(method, path, body)
  const ms = performance.now() - began
  if (status >= 300) throw new Error(`${name}: ${status} ${JSON.stringify(json).slice(0, 300)}`)
  if (isMeasuring && name !== "-") (samples[name] ??= []).push([Number(ms.toFixed(2))])
  return json
}

if (options.admin) await server.login(...options.admin.split(":"))
const office = options.admin ? await openOffice(call) : undefined
async function visits(count, from) {
  for (let n = from; n < from + count; n += 1) {
    await visit({ call, seed, random, n, convert: options.convert })
    if (office && random.next() < options.writes) await write({ call, seed, random, n, office })
  }
}
await visits(options.warmup, 0)
isMeasuring = true
const before = read(options)
await visits(options.flows, options.warmup)
const meter = between(before, read(options), options.flows)
for (const [name, path] of Object.entries(options.hot > 0 ? hotReads(seed) : {})) {
  isMeasuring = false
  for (let i = 0; i < 3; i += 1) await call(name, "GET", path)
  isMeasuring = true
  for (let i = 0; i < options.hot; i += 1) await call(name, "GET", path)
}
writeFileSync(options.out, JSON.stringify({ arm: options.arm, meter, samples }))
process.disconnect()
