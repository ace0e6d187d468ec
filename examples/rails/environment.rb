# ActiveRecord without the rest of Rails: the connection, and the model.
require "active_record"
require "yaml"

ActiveRecord::Base.configurations = YAML.load_file("#{__dir__}/config/database.yml")
ActiveRecord::Base.default_timezone = :utc
ActiveRecord::Base.dump_schema_after_migration = false
ActiveRecord::Base.establish_connection(:development)

class Visit < ActiveRecord::Base
end
