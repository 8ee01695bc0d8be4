// Reads a JSON list of simulations on stdin; writes a JSON list of [decision, denying statements, ignored keys].
import { runSimulation, getDenialReasons } from '@cloud-copilot/iam-simulate'

let text = ''
for await (const chunk of process.stdin) text += chunk
const answers = []
for (const simulation of JSON.parse(text)) {
  const found = await runSimulation(simulation, {})
  if (found.resultType !== 'single') {
    answers.push(['error', [JSON.stringify(found)], []])
    continue
  }
  const { analysis, ignoredContextKeys } = found.result
  const reasons = getDenialReasons(analysis).map((reason) => reason.statementId ?? reason.denialType)
  answers.push([found.overallResult, reasons, ignoredContextKeys ?? []])
}
process.stdout.write(JSON.stringify(answers))
