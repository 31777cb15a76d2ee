/**
 * What this browser keeps until the server has it: operations, the draft of each task, and the tasks themselves.
 *
 * @typedef {object} KeptOperation
 * @property {number} [number] Order in which operations were made; the browser's database counts.
 * @property {number} task_id
 * @property {string} token Lease that the operation was made under.
 * @property {"unsent" | "stored" | "on_branch" | "refused"} state
 * @property {object} operation As the server takes it.
 */

/** Database of one account in this browser. */
export class Store {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
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
      request.result.createObjectStore("drafts", { keyPath: "task_id" });
      request.result.createObjectStore("tasks", { keyPath: "task_id" });
    };
    return new Store(await result(request));
  }

  /**
   * Keep an operation; when the promise is fulfilled it is on disk.
   * @param {KeptOperation} kept
   */
  addOperation(kept) {
    return this.#write("operations", (operations) => operations.add(kept));
  }

  /**
   * Set what became of operations.
   * @param {KeptOperation[]} some
   * @param {KeptOperation["state"]} state
   */
  setState(some, state) {
    return this.#write("operations", (operations) => {
      for (const kept of some) operations.put({ ...kept, state });
    });
  }

  /** @returns {Promise<KeptOperation[]>} Operations that the server does not have yet, oldest first. */
  unsent() {
    return this.#read("operations", (operations) => operations.index("state").getAll("unsent"));
  }

  /** @returns {Promise<number>} */
  countUnsent() {
    return this.#read("operations", (operations) => operations.index("state").count("unsent"));
  }

  /**
   * @param {number} taskId
   * @returns {Promise<KeptOperation[]>} All operations of a task that this browser made, oldest first.
   */
  operationsOf(taskId) {
    return this.#read("operations", (operations) => operations.index("task_id").getAll(taskId));
  }

  /**
   * Forget a task that the server has in full; operations that it does not have stay.
   * @param {number} taskId
   */
  async forget(taskId) {
    const kept = await this.operationsOf(taskId);
    await this.#write("operations", (operations) => {
      for (const each of kept) if (each.state !== "unsent") operations.delete(/** @type {number} */ (each.number));
    });
    await this.#write("drafts", (drafts) => drafts.delete(taskId));
    await this.#write("tasks", (tasks) => tasks.delete(taskId));
  }

  /**
   * @param {number} taskId
   * @param {object | null} draft Mask in the making; null removes it.
   */
  saveDraft(taskId, draft) {
    return this.#write("drafts", (drafts) => (draft ? drafts.put({ task_id: taskId, draft }) : drafts.delete(taskId)));
  }

  /**
   * @param {number} taskId
   * @returns {Promise<any>} Draft of a task, or null.
   */
  async draftOf(taskId) {
    return (await this.#read("drafts", (drafts) => drafts.get(taskId)))?.draft ?? null;
  }

  /** @param {{task_id: number}} task Lease, line and picture, for work without the server. */
  saveTask(task) {
    return this.#write("tasks", (tasks) => tasks.put(task));
  }

  /** @returns {Promise<any[]>} */
  tasks() {
    return this.#read("tasks", (tasks) => tasks.getAll());
  }

  /**
   * @param {string} name
   * @param {(store: IDBObjectStore) => IDBRequest | void} act
   * @returns {Promise<void>}
   */
  #write(name, act) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(name, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      act(transaction.objectStore(name));
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
 * @param {IDBRequest} request
 * @returns {Promise<any>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
