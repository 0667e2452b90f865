// Loaded before a program (`node --import`), this leaves something open that nobody closes, as a library does now and then.
setInterval(() => undefined, 60_000)
