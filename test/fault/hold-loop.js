// Loaded before a program (`node --import`): at each SIGUSR2 its event loop is held up for ASKONCE_TEST_HOLD_MS milliseconds, as by one
// computation that long. Unlike a stopped process it has its other threads, and the machine around it goes on.
const ms = Number(process.env['ASKONCE_TEST_HOLD_MS'])

process.on('SIGUSR2', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms))
