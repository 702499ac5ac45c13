// The transform as a component of the world `simple-transform`. Used inside WebAssembly alone.

import { sinks, described } from "./index.js";
import { base, valuesCase } from "./types.js";

/** The functions that the component exports; `host` has those that it imports. */
export function world(transform, host) {
  sinks.log = host.log;
  sinks.count = (name, by) => host.count(name, Number(by));
  sinks.observe = host.observe;
  const computed = transform.computed.map(({ type }) => valuesCase(type));
  const typed = (columns) => Object.entries(columns).map(([path, dataType]) => ({ path, dataType }));
  let plan = null;
  return {
    describe() {
      return {
        name: transform.name,
        version: transform.version,
        description: transform.description,
        configSchema: JSON.stringify(transform.config),
        outputs: Object.entries(transform.outputs).map(([name, description]) => ({ name, description })),
        reads: {},
        columns: transform.reads.map(({ path, type, optional }) => ({ path, dataType: base(type), required: !optional })),
      };
    },
    configureSimple(configuration) {
      const columns = new Map(configuration.columns.map(({ path, dataType }) => [path, dataType]));
      plan = transform.bind(JSON.parse(configuration.config), configuration.topic, configuration.partition, columns);
      return {
        reads: transform.reads.map(({ path, type, optional }) => ({ path, dataType: type, optional })),
        removes: transform.removes,
        renames: Object.entries(transform.renames).map(([path, name]) => ({ path, name })),
        replaces: typed(transform.replaces),
        adds: typed(transform.adds),
        wideIntegersAsTexts: true,
      };
    },
    applySimple(batch) {
      try {
        const answer = plan.apply(batch.columns.map((values) => (values.tag === "absent" ? null : values.val)), batch.rows);
        return {
          verdicts: answer.verdicts,
          computed: answer.computed.map((values, i) => ({ tag: computed[i], val: values })),
        };
      } catch (error) {
        // The host shows what was logged last beside the trap that this ends in.
        host.log("error", described(error));
        throw error;
      }
    },
  };
}
