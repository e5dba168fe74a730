// Validates KEDA resources, a JSON array on standard input, against KEDA's own schemas; says what is wrong on each.
const keda = require("@kubernetes-models/keda/keda.sh/v1alpha1");

const resources = JSON.parse(require("fs").readFileSync(0, "utf8"));
const wrong = resources.flatMap((resource) => {
  try {
    new keda[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind} ${resource.metadata.name}: ${error.message}`];
  }
});
console.log(JSON.stringify(wrong));
