// Loaded before a program (`node --import`), this puts its wall clock off by ASKONCE_TEST_CLOCK_OFFSET_MS milliseconds: what
// Date says, and so every library that asks it. Timers and performance.now() are monotonic and stay, as on a real machine.
const offsetMs = Number(process.env['ASKONCE_TEST_CLOCK_OFFSET_MS'])
const Real = Date
const now = () => Real.now() + offsetMs

globalThis.Date = new Proxy(Real, {
  apply: () => new Real(now()).toString(),
  construct: (target, values, newTarget) =>
    Reflect.construct(target, values.length === 0 ? [now()] : values, newTarget),
  get: (target, name, receiver) => (name === 'now' ? now : Reflect.get(target, name, receiver)),
})
