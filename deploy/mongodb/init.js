// Run at each start, inside the container: what is there stays, passwords are set to those of the environment.
const env = process.env;
const root = ["root", env.MONGODB_ROOT_PASSWORD];
const admin = db.getSiblingDB("admin");

try {
  admin.auth(...root);
} catch (error) {
  if (error.codeName !== "AuthenticationFailed") throw error; // on the first start there is nobody yet
}

try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] });
}
for (let tries = 0; !db.hello().isWritablePrimary; tries += 1) {
  if (tries > 300) throw new Error("this node does not become the primary");
  sleep(100);
}

try {
  admin.auth(...root);
} catch (error) {
  admin.createUser({ user: root[0], pwd: root[1], roles: ["root"] });
  admin.auth(...root);
}

const users = {
  persister: { pwd: env.MONGODB_PERSISTER_PASSWORD, roles: [{ role: "readWrite", db: "tidegate" }] },
  reader: { pwd: env.MONGODB_READER_PASSWORD, roles: [{ role: "read", db: "tidegate" }] },
};
for (const [user, settings] of Object.entries(users)) {
  if (admin.getUser(user)) admin.updateUser(user, settings);
  else admin.createUser({ user, ...settings });
}
