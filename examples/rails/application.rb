# An application at work: writers change visits all the time, through the model, and keep books of what they did. A line with
# names of tables on standard input makes them stand still for a moment, while those tables are compared with the books;
# the end of input ends the application. Whatever goes wrong ends it at once, with an error.
require_relative "environment"

WRITERS = 3
SEEDS = 20_000 # rows that an empty table gets
PAUSE = 0.005 # seconds from one operation of a writer to the next

def new_attributes
  { "site" => rand(40), "path" => "/#{rand(1000)}", "hits" => 0, "referrer" => [nil, "/"].sample, "at" => Time.now.utc.floor(6) }
end

# One writer. Nobody else writes the rows in its books, but for one row that all writers count up.
class Writer
  OPERATIONS = %i[create create_many update count_up count_up_prepared upsert destroy read read_prepared read_many commit roll_back count_shared].freeze

  attr_reader :books, :turn, :operations, :repeated, :shared_hits

  def initialize(books, shared_id)
    @books = books # attributes by id
    @shared_id = shared_id
    @gone = [] # ids of rows that were destroyed
    @turn = Mutex.new # held during an operation
    @operations = @repeated = @shared_hits = 0
  end

  # Until it is told to stop; returns how many prepared statements its connection has then.
  def work
    until @stopped
      @turn.synchronize { operate(OPERATIONS.sample) }
      sleep PAUSE
    end
    Visit.connection.select_value("SELECT count(*) FROM pg_prepared_statements")
  end

  def stop
    @stopped = true
  end

  private

  def operate(operation)
    send(operation)
    @operations += 1
  rescue ActiveRecord::Deadlocked, ActiveRecord::SerializationFailure
    @repeated += 1
    retry
  end

  def bind(id)
    ActiveRecord::Relation::QueryAttribute.new("id", id, Visit.type_for_attribute("id"))
  end

  def note(visit)
    @books[visit.id] = visit.attributes
  end

  # One of this writer's rows, as it stands in the table.
  def any
    visit = Visit.find(@books.keys.sample)
    raise "#{visit.attributes} was read, #{@books[visit.id]} was written" if visit.attributes != @books[visit.id]

    visit
  end

  def create
    note(Visit.create!(new_attributes))
  end

  def create_many
    rows = Array.new(3) { new_attributes }
    ids = Visit.insert_all!(rows, returning: :id).rows.flatten
    ids.zip(rows) { |id, row| @books[id] = { "id" => id, **row } }
  end

  def update
    visit = any
    visit.update!(new_attributes.except("hits"))
    note(visit)
  end

  def count_up
    id = @books.keys.sample
    raise "#{id} is not there" if Visit.where(id: id).update_all("hits = hits + 1") != 1

    @books[id]["hits"] += 1
  end

  # ActiveRecord prepares what it reads; other statements where it is told to.
  def count_up_prepared
    id = @books.keys.sample
    sql = "UPDATE visits SET hits = hits + 1 WHERE id = $1 RETURNING hits"
    hits = Visit.connection.exec_query(sql, "count up", [bind(id)], prepare: true).rows
    @books[id]["hits"] += 1
    raise "#{hits} was read, #{@books[id]} was written" if hits != [[@books[id]["hits"]]]
  end

  # A row that is there, or was.
  def upsert
    id = @gone.pop || @books.keys.sample
    row = { "id" => id, **new_attributes }
    Visit.upsert(row, unique_by: :id)
    @books[id] = row
  end

  def destroy
    visit = any.destroy!
    @books.delete(visit.id)
    @gone.push(visit.id)
  end

  alias read any

  def read_prepared
    id = @books.keys.sample
    visits = Visit.find_by_sql("SELECT * FROM visits WHERE id = $1", [bind(id)], preparable: true)
    raise "#{visits} was read, #{@books[id]} was written" if visits.map(&:attributes) != [@books[id]]
  end

  def read_many
    ids = @books.keys.sample(20)
    rows = Visit.find_by_sql(["SELECT * FROM visits WHERE id IN (?)", ids]).to_h { |visit| [visit.id, visit.attributes] }
    raise "#{rows} was read, #{@books.slice(*ids)} was written" if rows != @books.slice(*ids)
  end

  def commit
    created = updated = nil
    Visit.transaction do
      created = Visit.create!(new_attributes)
      updated = any
      updated.update!(path: "/with/#{created.id}")
    end
    note(created)
    note(updated)
  end

  def roll_back
    Visit.transaction do
      visit = any
      visit.update!(path: "/never")
      visit.destroy!
      Visit.create!(new_attributes)
      raise ActiveRecord::Rollback
    end
  end

  def count_shared
    Visit.where(id: @shared_id).update_all("hits = hits + 1")
    @shared_hits += 1
  end
end

def rows_of(table)
  Visit.from("#{Visit.connection.quote_table_name(table)} AS visits").to_h { |visit| [visit.id, visit.attributes] }
end

def compare(table, books)
  rows = rows_of(table)
  wrong = (rows.keys | books.keys).reject { |id| rows[id] == books[id] }
  return if wrong.empty?

  raise "#{wrong.size} rows of #{table} are wrong, such as #{rows[wrong[0]]}, which should be #{books[wrong[0]]}"
end

$stdout.sync = true
Thread.abort_on_exception = true
Array.new(SEEDS) { new_attributes }.each_slice(1000) { |rows| Visit.insert_all!(rows) } unless Visit.exists?
books = rows_of("visits")
shared = books.delete(books.keys.min)
writers = books.keys.group_by { |id| id % WRITERS }.values.map { |ids| Writer.new(books.slice(*ids), shared["id"]) }
threads = writers.map { |writer| Thread.new { writer.work } }
expected = lambda do
  counted = shared.merge("hits" => shared["hits"] + writers.sum(&:shared_hits))
  writers.map(&:books).reduce({ shared["id"] => counted }, :merge)
end

puts "at work"
$stdin.each_line do |line|
  writers.each { |writer| writer.turn.lock }
  line.split.each { |table| compare(table, expected.call) }
  puts "as in the books: #{line.split.join(', ')}"
  writers.each { |writer| writer.turn.unlock }
end

writers.each(&:stop)
prepared = threads.sum(&:value)
compare("visits", expected.call)
puts "#{writers.sum(&:operations)} operations, #{writers.sum(&:repeated)} repeated, #{prepared} prepared statements"
