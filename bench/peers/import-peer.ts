/** Imports a package that only bench/node_modules has: by a name that the compiler does not follow, so it checks without it. */
export async function importPeer<Module>(name: string): Promise<Module> {
  return (await import(name)) as Module
}
