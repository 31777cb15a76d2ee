/**
 * What this browser keeps until the server has it: operations, the draft of each task, and the tasks themselves.
 *
 * @typedef {object} KeptOperation
 * @property {number} [number] Order in which operations were made; the browser's database counts.
 * @property {number} task_id
 * @property {string} token Lease that the operation was made under.
 * @property {"unsent" | "stored" | "on_branch" | "refused"} state
 * @property {Operation} operation As the server takes it.
 * @property {string} [message] Why the server refused it.
 * @typedef {object} Operation
 * @property {string} op_id
 * @property {string} session
 * @property {number} sequence
 * @property {number} base_revision
 * @property {string} kind
 * @property {any} payload
 * @property {string} client_time
 * @typedef {{submit: number} | {skip: string} | {handBack: true}} Leaving Revision to submit, reason to skip, or neither.
 * @typedef {object} KeptTask What is needed to work on a task without the server.
 * @property {number} task_id
 * @property {any} lease
 * @property {any} line
 * @property {any} round
 * @property {Blob | null} blob
 * @property {Leaving} [leaving] How the task ends once the server has all of its operations.
 */

/** Kinds of operations that change no mask: they leave the revision as it is. */
export const PASSIVE = new Set(["activity", "note"]);

/** Database of one account in this browser. */
export class Store {
  /**
   * @param {string} account
   * @param {IDBDatabase} database
   */
  constructor(account, database) {
    this.account = account;
    this.database = database;
    database.onversionchange = () => database.close(); // a newer page in another tab
  }

  /**
   * Open the database of an account.
   * @param {string} account
   * @returns {Promise<Store>}
   */
  static async open(account) {
    const request = indexedDB.open(`gigamask ${account}`, 1);
    request.onupgradeneeded = () => {
      const operations = request.result.createObjectStore("operations", { keyPath: "number", autoIncrement: true });
      operations.createIndex("state", "state");
      operations.createIndex("task_id", "task_id");
      for (const name of ["drafts", "tasks", "leases"]) request.result.createObjectStore(name, { keyPath: "task_id" });
    };
    const store = new Store(account, await result(request));
    void navigator.storage?.persist?.().catch(() => false); // else the browser may clear it when the disk is full
    return store;
  }

  /**
   * Keep an operation; when the promise is fulfilled it is on disk.
   * @param {KeptOperation} kept
   */
  addOperation(kept) {
    return this.#write(["operations"], ([operations]) => void operations.add(kept));
  }

  /**
   * Set what became of operations.
   * @param {KeptOperation[]} some
   * @param {KeptOperation["state"]} state
   */
  setState(some, state) {
    return this.#write(["operations"], ([operations]) => {
      for (const kept of some) operations.put({ ...kept, state });
    });
  }

  /**
   * Set an operation aside that the server refused. Those that were made after it move up by one revision.
   * @param {KeptOperation} refused
   * @param {string} message
   */
  async refuse(refused, message) {
    const isCounted = !PASSIVE.has(refused.operation.kind);
    const later = (await this.operationsOf(refused.task_id)).filter(
      (each) => each.state === "unsent" && Number(each.number) > Number(refused.number) && !PASSIVE.has(each.operation.kind),
    );
    await this.#write(["operations"], ([operations]) => {
      operations.put({ ...refused, state: "refused", message });
      for (const each of isCounted ? later : []) operations.put(rebased(each, each.operation.base_revision - 1));
    });
  }

  /**
   * Give the unsent operations of a task the revisions from this one on, and tell whether that changed any.
   * @param {number} taskId
   * @param {number} revision
   */
  async renumber(taskId, revision) {
    const unsent = (await this.operationsOf(taskId)).filter((each) => each.state === "unsent");
    let next = revision;
    const moved = unsent.map((each) => rebased(each, PASSIVE.has(each.operation.kind) ? next : next++));
    await this.#write(["operations"], ([operations]) => {
      for (const each of moved) operations.put(each);
    });
    return moved.some((each, at) => each.operation.base_revision !== unsent[at].operation.base_revision);
  }

  /**
   * @param {KeptOperation["state"]} state
   * @returns {Promise<KeptOperation[]>} Operations in a state, oldest first.
   */
  operations(state) {
    return this.#read("operations", (operations) => operations.index("state").getAll(state));
  }

  /** @returns {Promise<number>} Number of operations and of ends of tasks that the server does not have. */
  async countUnsent() {
    const operations = await this.#read("operations", (all) => all.index("state").count("unsent"));
    return operations + (await this.leaving()).length;
  }

  /** @returns {Promise<number>} */
  countRefused() {
    return this.#read("operations", (operations) => operations.index("state").count("refused"));
  }

  /**
   * @param {number} taskId
   * @returns {Promise<KeptOperation[]>} All operations of a task that this browser made, oldest first.
   */
  operationsOf(taskId) {
    return this.#read("operations", (operations) => operations.index("task_id").getAll(taskId));
  }

  /** Delete an operation for good. @param {KeptOperation} kept */
  deleteOperation({ number }) {
    return this.#write(["operations"], ([operations]) => void operations.delete(/** @type {number} */ (number)));
  }

  /**
   * Forget a task that the server has in full; operations that it does not have stay.
   * @param {number} taskId
   */
  async forget(taskId) {
    const kept = await this.operationsOf(taskId);
    await this.#write(["operations", "drafts", "tasks", "leases"], ([operations, ...others]) => {
      for (const { number, state } of kept) if (state === "stored" || state === "on_branch") operations.delete(/** @type {number} */ (number));
      for (const other of others) other.delete(taskId);
    });
  }

  /**
   * @param {number} taskId
   * @param {object | null} draft Mask in the making; null removes it.
   */
  saveDraft(taskId, draft) {
    return this.#write(["drafts"], ([drafts]) => void (draft ? drafts.put({ task_id: taskId, draft }) : drafts.delete(taskId)));
  }

  /**
   * @param {number} taskId
   * @returns {Promise<any>} Draft of a task, or null.
   */
  async draftOf(taskId) {
    return (await this.#read("drafts", (drafts) => drafts.get(taskId)))?.draft ?? null;
  }

  /** @param {KeptTask} task */
  saveTask(task) {
    return this.#write(["tasks"], ([tasks]) => void tasks.put(task));
  }

  /** @returns {Promise<KeptTask[]>} */
  tasks() {
    return this.#read("tasks", (tasks) => tasks.getAll());
  }

  /** @returns {Promise<KeptTask[]>} Tasks that are done here, but not yet at the server. */
  async leaving() {
    return (await this.tasks()).filter((each) => each.leaving);
  }

  /**
   * Set how a task ends, or that it does not end yet.
   * @param {{task_id: number}} lease
   * @param {Leaving | undefined} leaving
   */
  async setLeaving(lease, leaving) {
    const kept = (await this.tasks()).find((each) => each.task_id === lease.task_id);
    await this.saveTask({ line: null, round: null, blob: null, ...kept, task_id: lease.task_id, lease, leaving });
  }

  /**
   * Keep the present lease of a task; all tabs send under it.
   * @param {number} taskId
   * @param {string} token
   */
  saveToken(taskId, token) {
    return this.#write(["leases"], ([leases]) => void leases.put({ task_id: taskId, token }));
  }

  /**
   * @param {number} taskId
   * @returns {Promise<string>} Token of the present lease; empty where there is none.
   */
  async tokenOf(taskId) {
    return (await this.#read("leases", (leases) => leases.get(taskId)))?.token ?? "";
  }

  /**
   * @param {string[]} names
   * @param {(stores: IDBObjectStore[]) => void} act
   * @returns {Promise<void>}
   */
  #write(names, act) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(names, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      act(names.map((name) => transaction.objectStore(name)));
    });
  }

  /**
   * @param {string} name
   * @param {(store: IDBObjectStore) => IDBRequest} ask
   * @returns {Promise<any>}
   */
  #read(name, ask) {
    return result(ask(this.database.transaction(name, "readonly").objectStore(name)));
  }
}

/**
 * @param {KeptOperation} kept
 * @param {number} revision
 * @returns {KeptOperation}
 */
function rebased(kept, revision) {
  return { ...kept, operation: { ...kept.operation, base_revision: revision } };
}

/**
 * @param {IDBRequest} request
 * @returns {Promise<any>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
