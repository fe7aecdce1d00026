// near.mjs SEED PORT PROBEPORT: what a near cache inside Node could save of a hot page, at most (near-probe.cjs says
// how). Modes take turns in short blocks; processor time is compared as well as time, since it depends less on what
// else the machine does.
import { readFileSync } from "node:fs"
import { Server } from "./api.mjs"
import { hotReads } from "./visits.mjs"

const [seedFile, port, probe] = process.argv.slice(2)
const seed = JSON.parse(readFileSync(seedFile, "utf8"))
const server = new Server("module", Number(port), seed.publishable_key)
const mode = async (name) => JSON.parse((await (await fetch(`http://127.0.0.1:${probe}/${name}`)).text()))
const ROUNDS = Number(process.env.ROUNDS ?? 12)
const BLOCK = 25
const median = (list) => [...list].sort((one, other) => one - other)[Math.floor(list.length / 2)]

console.log("Medusa with the package, a hot page at a time. *Bytes*: what Redis answered is at hand in the process, without a message; *text*: what is parsed is at hand,")
console.log("decompressed. Parsed it must be each time in any case, since routes write into what they get. Nothing is ever forgotten, so this is a bound and no cache.\n")
console.log("| page | messages to Redis | waited for them, ms | opening values, ms | time a page, ms: redis / bytes / text | CPU a page, ms: redis / bytes / text |\n|---|---|---|---|---|---|")
for (const [name, path] of Object.entries(hotReads(seed))) {
  await mode("redis")
  for (let i = 0; i < 20; i += 1) await server.request("GET", path)
  await mode("count")
  for (let i = 0; i < BLOCK; i += 1) await server.request("GET", path)
  const counts = await mode("redis")
  const ms = { redis: [], bytes: [], text: [] }
  const cpu = { redis: [], bytes: [], text: [] }
  const modes = Object.keys(ms)
  for (let round = 0; round < ROUNDS; round += 1) {
    for (let i = 0; i < modes.length; i += 1) {
      const of = modes[(round + i) % modes.length]
      await mode(of)
      for (let n = 0; n < BLOCK; n += 1) {
        const began = performance.now()
        await server.request("GET", path)
        ms[of].push(performance.now() - began)
      }
      cpu[of].push((await mode("redis")).cpuMs / BLOCK)
    }
  }
  const each = (of) => modes.map((one) => median(of[one]).toFixed(2)).join(" / ")
  console.log(`| ${name} | ${(counts.calls / BLOCK).toFixed(1)} | ${(counts.waitedMs / BLOCK).toFixed(2)} | ${(counts.openMs / BLOCK).toFixed(2)} | ${each(ms)} | ${each(cpu)} |`)
}
