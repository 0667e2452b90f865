import { installFolder } from '../../scripts/install-folder.ts'

await installFolder(import.meta.dirname)
