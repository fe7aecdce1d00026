"use strict"
/**
 * A port that leads to a server: to another one from now on if `target` changes; `isHeld` says which connections get
 * no answer.
 */
const net = require("node:net")

async function startProxy(t, target, isHeld = () => false) {
  const found = { target, count: 0, sockets: new Set() }
  const listener = net.createServer((near) => {
    found.sockets.add(near.on("error", () => {}))
    const number = (found.count += 1)
    if (isHeld(number)) return near.resume()
    const far = net.connect(found.target, "127.0.0.1")
    found.sockets.add(far.on("error", () => {}))
    near.pipe(far)
    far.pipe(near)
    near.on("close", () => far.destroy())
    far.on("close", () => near.destroy())
  })
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve))
  t.after(() => {
    for (const socket of found.sockets) socket.destroy()
    listener.close()
  })
  return Object.assign(found, { url: `redis://127.0.0.1:${listener.address().port}/0` })
}

module.exports = { startProxy }
